"""Takes messages off Redis' lists, many at a time, so that none is lost with a connection."""

# pyright: basic
# (kombu ships no types: strict mode would complain of every value that comes from it.)

import time
from collections.abc import Sequence
from typing import NamedTuple
from uuid import uuid4

from redis import ConnectionPool, Redis
from redis.commands.core import Script
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

MOST = 100
"""Messages taken at a time, so that remote control is heard in between. A guess."""

MOST_BYTES = 1_000_000
"""Bytes of messages after which no further one is taken: Redis serves nobody else meanwhile. A guess."""

SCRIPT = """
local unacked, index, answers = KEYS[1], KEYS[2], KEYS[3]
local call, now, most, most_bytes, queues, kept_for =
  ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local found, notes, scores, answer, taken, stuck, bytes = {}, {}, {}, {call}, {}, {}, 0

local function reveal(number, item)
  found[#found + 1] = number
  found[#found + 1] = item
end

local before = redis.call('GET', answers)
if before then
  before = cjson.decode(before)
  if before[1] == call then -- once more, as the answer was lost
    for each = 2, #before, 3 do
      local note = redis.call('HGET', unacked, before[each])
      if note then
        reveal(before[each + 1], string.sub(note, 2, before[each + 2] + 1))
      end
    end
    return found
  end
end

local function envelope(item)
  local is_json, message = pcall(cjson.decode, item)
  local properties = is_json and type(message) == 'table' and message.properties
  local info = type(properties) == 'table' and properties.delivery_info
  if type(info) ~= 'table' or type(properties.delivery_tag) ~= 'string'
      or type(info.exchange) ~= 'string' or type(info.routing_key) ~= 'string' then
    return nil -- not as kombu writes it: kombu is to see it
  end
  return properties.delivery_tag, cjson.encode(info.exchange) .. ', ' .. cjson.encode(info.routing_key)
end

local function take(list, number)
  local item = redis.call('LINDEX', list, -1 - (taken[list] or 0))
  local tag, to
  if item then
    tag, to = envelope(item)
  end
  if not tag then
    stuck[list] = true
    return false
  end
  taken[list] = (taken[list] or 0) + 1
  bytes = bytes + #item
  reveal(number, item)
  for _, part in ipairs({tag, number, #item}) do
    answer[#answer + 1] = part
  end
  notes[#notes + 1] = tag
  notes[#notes + 1] = '[' .. item .. ', ' .. to .. ']'
  scores[#scores + 1] = now
  scores[#scores + 1] = tag
  return true
end

for first = 4, #KEYS, queues do -- one priority after the other, the queues in turn
  local goes_on = true
  while goes_on do
    goes_on = false
    for number = 1, queues do
      local list = KEYS[first + number - 1]
      if #found < 2 * most and bytes < most_bytes and not stuck[list] then
        goes_on = take(list, number) or goes_on
      end
    end
  end
end
if #found > 0 then -- what may be refused comes first
  redis.call('SET', answers, cjson.encode(answer), 'EX', kept_for)
  redis.call('HSET', unacked, unpack(notes))
  redis.call('ZADD', index, unpack(scores))
  for list, number in pairs(taken) do
    redis.call('LTRIM', list, 0, -number - 1)
  end
end
return found
"""
"""
Takes messages off lists and notes them as unacknowledged; returns a queue's number and a message, in turn.

Called again with the same call number, it answers what it has answered then, and takes nothing.

Keys: the hash and the sorted set of kombu's bookkeeping, where the last answer is kept, then the lists of the
queues for each priority. Arguments: the call's number, the time, how many messages at most, how many bytes, how
many queues, seconds for which the answer is kept.
"""

_LOST = (RedisConnectionError, RedisTimeoutError, OSError)


class Request(NamedTuple):
    """What is asked for: the lists, a priority's queues in a row; how many queues; how many messages at most."""

    lists: Sequence[str]
    queues: int
    most: int


class Taker:
    """
    Takes messages for one channel.

    Redis may have done what it was asked for when the connection is lost before its answer has come. Asked again,
    by redis-py itself or from here, it answers the same: nothing is taken that nobody knows of.

    Args:
        unacked, index: The keys of kombu's bookkeeping.
        kept_for: Seconds for which Redis keeps its last answer: no longer than it takes kombu to give back what
            a lost worker had.

    Attributes:
        answers: The key that it is kept by.

    Thread: one at a time.
    """

    def __init__(self, unacked: str, index: str, kept_for: float) -> None:
        self.answers = f"{unacked}.answers.{uuid4().hex}"
        self._keys = (unacked, index, self.answers)
        self._kept_for = max(1, int(kept_for))
        self._calls = 0
        self._unanswered: Request | None = None
        self._client: Redis | None = None
        self._script: Script | None = None

    def take(self, pool: ConnectionPool, request: Request) -> list[tuple[int, bytes]]:
        """
        Take what there is.

        Returns:
            For each message its queue's number, from 0 on, and the message.

        Raises:
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError: The connection was lost, and
                a second time. What was taken is found by `recall`.
            redis.exceptions.ResponseError: Redis refuses; nothing was taken.
        """
        self._calls += 1
        self._unanswered = request
        try:
            return self._ask(pool, request)
        except _LOST:
            return self._ask(pool, request)

    @property
    def is_unanswered(self) -> bool:
        """Whether the last `take` may have taken what it could not return."""
        return self._unanswered is not None

    def recall(self, pool: ConnectionPool) -> list[tuple[int, bytes]]:
        """Return what the last `take` could not; raise as it does."""
        assert self._unanswered is not None
        return self._ask(pool, self._unanswered._replace(most=0))

    def _ask(self, pool: ConnectionPool, request: Request) -> list[tuple[int, bytes]]:
        if self._client is None or self._client.connection_pool is not pool:
            # Not by the channel's own client, which would prefix one of the keys.
            self._client = Redis(connection_pool=pool)
            self._script = Script(self._client, SCRIPT)
        assert self._script is not None
        limits = (request.most, MOST_BYTES, request.queues, self._kept_for)
        try:
            found = self._script(keys=(*self._keys, *request.lists), args=(self._calls, time.time(), *limits))
        except ResponseError:
            self._unanswered = None
            raise
        self._unanswered = None
        return [(number - 1, item) for number, item in zip(found[::2], found[1::2], strict=True)]


def is_for_good(error: ResponseError) -> bool:
    """Tell whether Redis will refuse the script again: it does not know what it needs, or does not let us."""
    unknown = ("unknown command", "can't run this command")  # the other one from within a script
    return isinstance(error, NoPermissionError) or any(text in str(error) for text in unknown)
