// Values that the service has normalised (dates, lengths of time, money), in the person's language.

const LONG_DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeZone: "UTC" });
const UNITS = { Y: "year", M: "month", W: "week", D: "day" };

const READERS = [
  [/^(\d{4}-\d{2}-\d{2})$/, ([, date]) => longDate(new Date(date))],
  [/^P(\d+)([YMWD])$/, ([, count, unit]) => quantity(Number(count), UNITS[unit])],
  [/^(\d+(?:\.\d+)?) ([A-Z]{3})$/, ([, amount, currency]) => money(Number(amount), currency)],
];

/** `2026-03-01`, `P30D` and `50000.00 USD` as a person writes them; anything else as it is. */
export function readable(value) {
  const text = String(value ?? "");
  for (const [pattern, read] of READERS) {
    const match = pattern.exec(text);
    if (match !== null) return read(match) ?? text;
  }
  return text;
}

function longDate(date) {
  return Number.isNaN(date.getTime()) ? null : LONG_DATE.format(date); // 2026-02-31 is no date
}

function quantity(count, unit) {
  return new Intl.NumberFormat(undefined, { style: "unit", unit, unitDisplay: "long" }).format(count);
}

function money(amount, currency) {
  const options = { style: "currency", currency, currencyDisplay: "code", trailingZeroDisplay: "stripIfInteger" };
  return new Intl.NumberFormat(undefined, options).format(amount);
}
