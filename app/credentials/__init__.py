"""Who may: API keys, tokens of an issuer, tickets for streams; and what each of them lets its bearer do."""
