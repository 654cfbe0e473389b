// Fields for a value that is chosen.

import { element } from "../lib/dom.js";
import { label } from "../lib/words.js";
import { Field } from "./field.js";

/** One of the values of `enum`. */
export class ChoiceField extends Field {
  constructor(options) {
    super(options);
    this.values = options.schema.enum;
    const names = this.values.map((value, index) => element("option", { value: index }, this.nameOf(value)));
    const none = element("option", { value: "" }, this.isRequired ? "Choose…" : "Not set");
    this.element = this.frame(element("select", {}, none, ...names));
  }

  nameOf(value) {
    return typeof value === "string" ? label(value) || "(empty)" : JSON.stringify(value);
  }

  read() {
    return this.control.value === "" ? undefined : this.values[Number(this.control.value)];
  }

  write(value) {
    const index = this.values.findIndex((each) => JSON.stringify(each) === JSON.stringify(value));
    this.control.value = index === -1 ? "" : String(index);
  }

  check() {
    return this.complain(this.isRequired && this.control.value === "" ? "Choose one." : null);
  }
}

/** Yes, no, or, where neither is needed, neither. */
export class OpenSwitchField extends ChoiceField {
  constructor(options) {
    super({ ...options, schema: { ...options.schema, enum: [true, false] } });
  }

  nameOf(value) {
    return value ? "Yes" : "No";
  }
}

/** Yes or no, where there is a default or one of both is needed. */
export class SwitchField extends Field {
  constructor(options) {
    super({ ...options, isRequired: true });
    this.element = this.frame(element("input", { type: "checkbox" }));
    this.element.classList.add("switch");
  }

  read() {
    return this.control.checked;
  }

  write(value) {
    this.control.checked = value === true;
  }

  check() {
    return this.complain(null);
  }
}

/** A value that is what it is. */
export class FixedField extends Field {
  constructor(options) {
    super({ ...options, isRequired: true });
    this.element = this.frame(element("output", {}, String(options.schema.const)));
  }

  read() {
    return this.schema.const;
  }

  write() {}

  check() {
    return true;
  }
}
