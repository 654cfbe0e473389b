"""A real run of pytest: the session's pool, asked by a test on its own loop.

class: TEST_LOOP_MISMATCH
needs: postgres
"""

import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = """
import os

import asyncpg
import pytest
import pytest_asyncio


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool():
    opened = await asyncpg.create_pool(os.environ["WILD_PG"], min_size=1, max_size=1)
    yield opened
    opened.terminate()


@pytest.mark.asyncio
async def test_answer(pool):
    async with pool.acquire() as connection:
        assert await connection.fetchval("select 42") == 42
"""

with tempfile.TemporaryDirectory() as folder:
    Path(folder, "test_answer.py").write_text(TESTS)
    Path(folder, "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_answer.py"]
    subprocess.run(command, cwd=folder, check=False)
