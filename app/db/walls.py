"""The wall between realms that stands in Postgres: row-level security, forced, on every table that holds a tenant's rows.

A row is seen and written only by a transaction that has set its realm. A role that is above such policies, as a superuser is,
is left at once for one that is not. Source: docs/decisions/0014-two-walls.md
"""

import re
from typing import Any, Final

import asyncpg

from app.errors import StartupError

SETTING: Final = "suricate.realm"
EVERY_REALM: Final = "*"
ROLE: Final = "suricate_app"
REALM_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")

# Neither as a sub-select nor named twice: a statement prepares it for each table it names, which costs more than its few rows.
_REALM: Final = f"current_setting('{SETTING}', true)"
_IS_SERVICE: Final = f"{_REALM} = '{EVERY_REALM}'"
_IS_SEEN: Final = f"{_REALM} = ANY (ARRAY[realm_id, '{EVERY_REALM}'])"
POLICIES: Final = {
    "realm": f"USING ({_IS_SEEN})",
    "realm_reads": f"USING ({_IS_SEEN})",
    "realm_adds": f"WITH CHECK ({_IS_SEEN})",
    "age_ends": f"USING ({_IS_SERVICE})",
    # To skip what another node deletes, rows are locked, which Postgres counts among updates; none passes the check.
    "service_locks": f"USING ({_IS_SERVICE}) WITH CHECK (false)",
}
"""The words of each policy, by its name."""
_APPEND_ONLY: Final = {"realm_reads": "SELECT", "realm_adds": "INSERT", "age_ends": "DELETE", "service_locks": "UPDATE"}
_IS_EXEMPT = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
_MAKE_ROLE = f"""
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
    CREATE ROLE {ROLE} NOLOGIN NOSUPERUSER NOBYPASSRLS;
    GRANT {ROLE} TO CURRENT_USER;
  END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""
_GRANT = f"""
GRANT USAGE ON SCHEMA public TO {ROLE};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {ROLE};
REVOKE INSERT, UPDATE, DELETE ON alembic_version, schema_floor FROM {ROLE}
"""

_TABLES = """
SELECT c.relname FROM pg_class c
WHERE c.relforcerowsecurity AND c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace AND c.relname <> 'sessions'
  AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'session_id' AND a.attnotnull)
ORDER BY c.relname
"""


def begin(realm: str) -> str:
    """Return the words that open a transaction in a realm, in one round trip.

    Raises:
        ValueError: this is no realm's name.
    """
    if realm != EVERY_REALM and not REALM_ID.match(realm):
        raise ValueError("not a realm's name")
    return f"BEGIN; SET LOCAL {SETTING} = '{realm}'"


def build(table: str) -> list[str]:
    """Return the statements that wall a table which has a `realm_id`; for its migration."""
    return [*_forced(table), f"CREATE POLICY realm ON {table} {POLICIES['realm']}"]


def build_append_only(table: str) -> list[str]:
    """Return the statements that wall a table whose rows nobody changes, and only the service's own work deletes."""
    policies = (f"CREATE POLICY {name} ON {table} FOR {act} {POLICIES[name]}" for name, act in _APPEND_ONLY.items())
    return [*_forced(table), *policies]


def rebuild(table: str, policy: str) -> str:
    """Return the statement that gives one of `POLICIES` today's words; for a migration."""
    return f"ALTER POLICY {policy} ON {table} {POLICIES[policy]}"


async def tables(db: Any) -> list[str]:
    """Return the walled tables whose rows do not all go with a session."""
    return [row["relname"] for row in await db.fetch(_TABLES)]


def _forced(table: str) -> list[str]:
    return [f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY", f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY"]


async def role(db: Any) -> dict[str, str]:
    """Return the Postgres settings under which policies hold for a connection like this one.

    Raises:
        StartupError: this role is above policies, and may neither make one that is not nor become it.
    """
    if not await db.fetchval(_IS_EXEMPT):
        return {}
    try:
        await db.execute(_MAKE_ROLE)
        await db.execute(f"SET ROLE {ROLE}; RESET ROLE")
    except asyncpg.InsufficientPrivilegeError as error:
        raise StartupError(
            "The role of SURICATE_DATABASE_URL is above row-level security and may not leave for another. "
            f"Take BYPASSRLS from it, or let a superuser run CREATE ROLE {ROLE} NOLOGIN and grant it to that role."
        ) from error
    return {"role": ROLE}


async def grant(db: Any) -> None:
    """Let the role that an exempt one is left for use the tables; without such a one, nothing is to be done."""
    if await db.fetchval(_IS_EXEMPT):
        await db.execute(_GRANT)
