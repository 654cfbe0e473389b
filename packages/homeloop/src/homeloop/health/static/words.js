// Numbers, times and codes as people read them.

/** Seconds: "0.4 ms", "250 ms", "3.2 s", "4 min", "2 h". */
export function seconds(value) {
  if (value < 0.01) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
}

/** A length of time that goes on, so its digits need not change every second. */
export function age(value) {
  return value < 60 ? `${Math.floor(value)} s` : seconds(value);
}

export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** Seconds since the epoch as a time of day in the person's zone. */
export function timeOfDay(value) {
  return clock.format(new Date(value * 1000));
}

/** "loop-blocked" as "Loop blocked". */
export function label(code) {
  const words = String(code).replaceAll(/[_-]+/g, " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

export function loopName(loop) {
  return loop === undefined ? "a loop that is gone" : `${loop.name} (loop ${loop.home.loop})`;
}

/** How often something was, and when it was last. */
export function times({ number, at, age: ago }) {
  const last = `${timeOfDay(at)}, ${age(ago)} ago`;
  return number === 1 ? last : `${number} times, the last ${last}`;
}
