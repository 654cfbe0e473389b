// What all fields of a form have in common.

import { element } from "../lib/dom.js";
import { hintOf, titleOf } from "./schema.js";

let count = 0;

/**
 * One value of a form: its label, its control, and what is wrong with it beside it.
 *
 * A field has `read()` (the value; undefined means «not given»), `write(value)` (undefined empties it) and `check()`
 * (whether its value can be sent; what is wrong is said beside it). Paths lead from a field to those inside it.
 */
export class Field {
  /** `options`: `schema`, `name` (of the property) and `isRequired`. */
  constructor({ schema, name, isRequired = false, title = titleOf(schema, name) }) {
    this.schema = schema;
    this.name = name;
    this.title = title;
    this.isRequired = isRequired;
    this.id = `field-${(count += 1)}`;
    this.error = element("p", { class: "error", id: `${this.id}-error` });
    this.hint = hintOf(schema);
  }

  /** The element of the whole field: label, hint, what is wrong, and the control with the field's id. */
  frame(control, ...more) {
    this.control = control;
    control.id = this.id;
    const hint = this.hint ? element("p", { class: "hint", id: `${this.id}-hint` }, this.hint) : null;
    control.setAttribute("aria-describedby", [hint?.id, this.error.id].filter(Boolean).join(" "));
    if (this.isRequired && control.matches("input, select, textarea")) control.setAttribute("aria-required", "true");
    return element("div", { class: "field", "data-name": this.name }, this.label(), hint, control, ...more, this.error);
  }

  label() {
    return element("label", { for: this.id }, this.title, this.isRequired ? null : element("span", { class: "optional" }, " (optional)"));
  }

  /** Call it by another title. */
  retitle(title) {
    this.title = title;
    this.element.querySelector("label, legend, .label").firstChild.data = title;
  }

  /** Say what is wrong with the value; "" says that nothing is. Returns whether nothing is. */
  complain(message) {
    this.error.textContent = message ?? "";
    if (message) this.control.setAttribute("aria-invalid", "true");
    else this.control.removeAttribute("aria-invalid");
    return !message;
  }

  /** Say `message` at the field that `path` leads to; false if it leads nowhere from here. */
  place(path, message) {
    if (path.length > 0) return false;
    this.complain(message);
    return true;
  }

  /** What is in the field, as JSON, whether it can be sent or not; `restore` brings it back. */
  state() {
    return this.read();
  }

  restore(state) {
    this.write(state);
  }

  /** The fields that have something wrong, this one and those inside it, in their order. */
  faulty() {
    return this.error.textContent === "" ? [] : [this];
  }

  focus() {
    this.control.focus();
  }

  /** Await what is still on its way into the field. */
  async settle() {}

  /** Give up what is still on its way; the form is gone. */
  leave() {}
}
