"""Suricate, floor by floor; imports only go down.

F6  cli  main                    commands; everything is built and closed in one place
F5  api                          the door: HTTP in, JSON and SSE out
    worker                       the workshop: carries turns out
F4  copies                       forks of sessions, exports, and sessions made of those
    turns                        the desk: rules of turns, claims, endings
    agent                        the loop: one attempt at a turn; steps, tool calls, transcripts
F3  idempotency  erasure         what a repeated POST gets; everything of a realm, erased
    credentials  limits  audit   who may, how much, and the trail of who did
    catalog  realms  expiry      lists of sessions; a realm's configuration; sessions that go by themselves
    nodes  usage                 the processes on the database, and which of them are to drain; what was used, by day
    history  sessions            what was said; open, read, change, archive, erase one session
    webhooks                     what URLs of a realm are told
    hooks                        who is asked on a turn's way, and may deny or change
    providers  tools             model vendors; what models may call
F2  journal                      the ledger: the one place that writes and reads events
F1  db  messages                 Postgres; what models read and write
    otlp  traces                 spans, and where they are sent
    outbound  seals              the one way out; secrets at rest
F0  settings  telemetry  pace  cache  errors  redaction  ids  clock
"""
