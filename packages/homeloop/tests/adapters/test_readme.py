"""The README's first example, the one everybody copies, does what it says."""

import asyncio
import importlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
from celery import Celery

pytestmark = [pytest.mark.needs("redis", "postgres"), pytest.mark.timeout(180)]

README = Path(__file__).parents[4] / "README.md"
WAIT = 60.0  # seconds for a result


async def _make_orders(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("CREATE TABLE orders (id int PRIMARY KEY, total int)")
        await connection.execute("INSERT INTO orders SELECT n, n * 10 FROM generate_series(1, 20) AS n")
    finally:
        await connection.close()


def test_the_first_example_runs_in_a_worker(
    own_database: str,
    redis_url: str,
    tmp_path: Path,
    start_worker,
    close_client: Callable[[Celery], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it is written but for its addresses, and a queue and a place for results of the test's own."""
    asyncio.run(_make_orders(own_database))
    found = re.search(r"^```python\n(.*?)^```$", README.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    text = found[1].replace("redis://127.0.0.1:6379/0", redis_url)
    text = text.replace("postgresql://127.0.0.1/shop", own_database)
    assert redis_url in text
    assert own_database in text
    queue = os.environ["SEED_QUEUE"]
    (tmp_path / "readme_shop.py").write_text(
        f"{text}\napp.conf.update(result_backend={redis_url!r}, task_default_queue={queue!r})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # of the worker
    shop = importlib.import_module("readme_shop")
    try:
        with start_worker("readme_shop", "prefork", 2):
            sent = [shop.order_total.delay(number) for number in range(1, 21)]
            assert [result.get(timeout=WAIT) for result in sent] == [number * 10 for number in range(1, 21)]
    finally:
        shop.app.control.purge()
        close_client(shop.app)
