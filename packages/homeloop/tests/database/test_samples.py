"""The database samples of the document that started homeloop run as written, with other import lines."""

import pytest

import homeloop
from homeloop.async_utils import AsyncContextManager, ensure_async_pool_initialization
from homeloop.database import ConnectionPoolManager, get_user_connection

pytestmark = pytest.mark.needs("postgres")


async def my_async_function():
    async with AsyncContextManager():
        # Safe to perform async operations here
        await ensure_async_pool_initialization()

        # Database operations
        async with get_user_connection() as conn:
            await conn.execute("INSERT INTO documents (id, body) VALUES ('3', 'new')")


async def my_async_task(self, document_id: str, user_id: str):
    # Database operations are now safe
    async with get_user_connection() as conn:
        result = await conn.fetchrow("SELECT * FROM documents WHERE id = $1", document_id)
    return result  # noqa: RET504 - as written there


def test_samples_run(configured, capsys: pytest.CaptureFixture[str]) -> None:
    """A3, B1, B2: the context manager, the pools, the user's connection and the metrics are used as documented."""
    with homeloop.as_user("alice"):
        homeloop.run(my_async_function)
        assert homeloop.run(my_async_task, None, "3", "alice")["body"] == "new"
    with homeloop.as_user("bob"):
        assert homeloop.run(my_async_task, None, "3", "bob") is None

    # Check database pool state
    metrics = ConnectionPoolManager.get_metrics()
    print(f"Pool metrics: {metrics}")
    assert "'active_pools': 2" in capsys.readouterr().out
