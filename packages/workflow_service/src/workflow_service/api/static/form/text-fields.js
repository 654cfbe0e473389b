// Fields for one value that is written: texts, numbers, dates, JSON.

import { element } from "../lib/dom.js";
import { Field } from "./field.js";
import { faultOfNumber, faultOfText } from "./schema.js";

const NEEDED = "This is needed.";

class WrittenField extends Field {
  constructor(options, control) {
    super(options);
    this.element = this.frame(control);
  }

  check() {
    return this.complain(this.#fault());
  }

  // As it was written: half a number or half a JSON text is no value, and yet it was work.
  state() {
    return this.control.value;
  }

  restore(text) {
    this.control.value = text ?? "";
  }

  #fault() {
    if (this.control.validity.badInput) return "This is not complete.";
    const text = this.control.value.trim();
    if (text === "") return this.isRequired ? NEEDED : null;
    return this.faultOf(text);
  }

  faultOf() {
    return null;
  }
}

/** A text in one line. */
export class TextField extends WrittenField {
  constructor(options, control = element("input", { type: "text", ...typing(options.schema) })) {
    super(options, control);
  }

  read() {
    return this.control.value.trim() === "" ? undefined : this.control.value;
  }

  write(value) {
    this.control.value = value ?? "";
  }

  faultOf() {
    return faultOfText(this.control.value, this.schema);
  }
}

function typing({ format }) {
  if (format === "email") return { inputmode: "email", autocomplete: "off", autocapitalize: "off", spellcheck: "false" };
  if (format === "uri") return { inputmode: "url", autocomplete: "off", autocapitalize: "off", spellcheck: "false" };
  return { autocomplete: "off" };
}

/** A text in several lines. */
export class LinesField extends TextField {
  constructor(options) {
    super(options, element("textarea", { rows: 5 }));
  }
}

const WRITTEN_NUMBER = /^[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?$/i;
const OPEN_NUMBER = /^[+-]?\d{1,3},\d{3}$/; // a thousand here, one there

/** A number. Not the browser's own field for them: it hides what it does not understand. */
export class NumberField extends WrittenField {
  constructor(options) {
    const mode = options.schema.minimum >= 0 ? "decimal" : null; // phones' number pads have no minus
    super(options, element("input", { type: "text", inputmode: mode, autocomplete: "off", class: "short" }));
  }

  read() {
    const text = this.control.value.trim();
    return text === "" ? undefined : Number(text.replace(",", "."));
  }

  write(value) {
    this.control.value = value ?? "";
  }

  faultOf() {
    const value = this.read();
    const text = this.control.value.trim();
    if (OPEN_NUMBER.test(text)) return `This can mean two numbers: write ${text.replace(",", "")} or ${text.replace(",", ".")}.`;
    if (!WRITTEN_NUMBER.test(text) || !Number.isFinite(value)) return "This is no number.";
    return faultOfNumber(value, this.schema);
  }
}

/** A day: ISO 8601 in the data, the person's own way on the screen. */
export class DayField extends WrittenField {
  constructor(options) {
    super(options, element("input", { type: "date", class: "short" }));
  }

  read() {
    return this.control.value || undefined;
  }

  write(value) {
    this.control.value = value ?? "";
  }
}

/** A moment: with its zone in the data, in the person's zone on the screen. */
export class MomentField extends WrittenField {
  constructor(options) {
    super(options, element("input", { type: "datetime-local", class: "short" }));
  }

  read() {
    return this.control.value === "" ? undefined : new Date(this.control.value).toISOString();
  }

  write(value) {
    const at = new Date(value ?? NaN);
    const local = new Date(at.getTime() - at.getTimezoneOffset() * 60_000);
    this.control.value = Number.isNaN(at.getTime()) ? "" : local.toISOString().slice(0, 16);
  }
}

/** Whatever no other field is made for, as JSON. */
export class JsonField extends WrittenField {
  constructor(options) {
    super(options, element("textarea", { rows: 6, class: "code", spellcheck: "false", autocapitalize: "off" }));
  }

  read() {
    const text = this.control.value.trim();
    if (text === "") return undefined;
    try {
      return JSON.parse(text);
    } catch {
      return undefined;
    }
  }

  write(value) {
    this.control.value = value === undefined ? "" : JSON.stringify(value, null, 2);
  }

  faultOf(text) {
    let value;
    try {
      value = JSON.parse(text);
    } catch (error) {
      return `This is no JSON: ${error.message}`;
    }
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    if (this.schema.type === "object" && !isObject) return 'This must be an object: {"name": "value"}.';
    if (this.schema.type === "array" && !Array.isArray(value)) return 'This must be a list: ["value"].';
    return null;
  }
}
