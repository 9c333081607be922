"""Every question of ``wf doctor`` is one that each supported PostgreSQL answers, also to a role that owns nothing."""

from __future__ import annotations

import pytest

from simpleworkflow.health import examine


@pytest.mark.parametrize("owns", [True, False])
def test_every_check_is_answered(db, superuser, owns):
    role = f"{db.schema}_app"
    superuser.execute(f"create role {role}".encode())
    try:
        if not owns:
            superuser.execute(f"grant usage on schema {db.schema} to {role}".encode())
            superuser.execute(f"grant select on all tables in schema {db.schema} to {role}".encode())
            superuser.execute(f"set role {role}".encode())
        found = list(examine(superuser if not owns else db, db.schema, long_seconds=300))
    finally:
        superuser.execute("reset role")
        superuser.execute(f"drop owned by {role}".encode())
        superuser.execute(f"drop role {role}".encode())

    assert [one for one in found if "could not be checked" in one.found] == []
    assert next(one for one in found if one.check == "objects").severity == "ok"
