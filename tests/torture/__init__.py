"""Torture: a fleet of nodes under load while everything around it breaks, and a judge that reads what was seen.

Everything is a process of its own on loopback: nodes, Postgres, the provider and the tools (doubles), the proxies on every
edge between them, clients and watchers. Each writes down what it did and saw as lines of JSON in one folder (`records`); what
happens in a turn is said by its prompt (`plan`), so that doubles and judge know it too. A seeded nemesis breaks things and
records the proof that each fault bit; in the end everything is healed, the database is copied into the folder, and the checker
holds all of it against the promises.

    ./run torture --minutes 30 --seed 1     the whole
    ./run torture sweep                     a cut before and after every commit of a scenario
    ./run torture mutants                   breaks the service on purpose; each break must be noticed
    ./run torture starts                    fifty starts at once of a turn in one session; one must win
"""
