"""Look-alike: an expired attribute is read where the session cannot wait.

class: LOOKALIKE_MISSING_GREENLET
needs:
"""

import asyncio

from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


async def main():
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    try:
        async with AsyncSession(engine) as session:
            note = Note(text="hello")
            session.add(note)
            await session.commit()
            print(note.text)
    finally:
        await engine.dispose()


asyncio.run(main())
