// Fields with fields inside: objects and lists.

import { button, element } from "../lib/dom.js";
import { Field } from "./field.js";
import { faultOfList, takesNull, titleOf } from "./schema.js";

class GroupField extends Field {
  /** `make(options)` makes the fields inside. */
  constructor(options, make) {
    super(options);
    this.make = make;
  }

  group(...content) {
    const hint = this.hint ? element("p", { class: "hint", id: `${this.id}-hint` }, this.hint) : null;
    const name = element("legend", {}, this.title, this.isRequired ? null : element("span", { class: "optional" }, " (optional)"));
    const described = [hint?.id, this.error.id].filter(Boolean).join(" ");
    this.control = element(
      "fieldset",
      { id: this.id, class: "field group", "data-name": this.name, "aria-describedby": described, tabindex: "-1" },
      name,
      hint,
      ...content,
      this.error,
    );
    return this.control;
  }

  faulty() {
    return [...super.faulty(), ...this.inside().flatMap((field) => field.faulty())];
  }

  async settle() {
    await Promise.all(this.inside().map((field) => field.settle()));
  }

  leave() {
    for (const field of this.inside()) field.leave();
  }

  // All are checked, so that all that is wrong is said at once.
  checkInside() {
    return this.inside().map((field) => field.check()).every(Boolean);
  }
}

/** An object: a field for each property. What else it is given it keeps, and gives back. */
export class ObjectField extends GroupField {
  #fields = new Map();
  #others = {};

  constructor(options, make) {
    super(options, make);
    const { properties, required = [] } = options.schema;
    for (const [name, schema] of Object.entries(properties)) {
      this.#fields.set(name, make({ schema, name, isRequired: required.includes(name) }));
    }
    this.content = this.inside().map((field) => field.element);
    this.element = options.isRoot ? null : this.group(...this.content);
  }

  inside() {
    return [...this.#fields.values()];
  }

  read() {
    const given = [...this.#fields].map(([name, field]) => [name, this.#valueOf(name, field)]).filter(([, value]) => value !== undefined);
    const value = { ...this.#others, ...Object.fromEntries(given) };
    return Object.keys(value).length > 0 || this.isRequired ? value : undefined;
  }

  // What is needed and may be null is null when it is left empty.
  #valueOf(name, field) {
    const value = field.read();
    const isNull = value === undefined && takesNull(field.schema) && this.schema.required?.includes(name);
    return isNull ? null : value;
  }

  state() {
    const inside = [...this.#fields].map(([name, field]) => [name, field.state()]);
    return { others: this.#others, fields: Object.fromEntries(inside) };
  }

  restore(state) {
    this.#others = state?.others ?? {};
    for (const [name, field] of this.#fields) field.restore(state?.fields?.[name]);
  }

  write(value) {
    this.#others = Object.fromEntries(Object.entries(value ?? {}).filter(([name]) => !this.#fields.has(name)));
    for (const [name, field] of this.#fields) field.write(value === undefined ? field.schema.default : value?.[name]);
  }

  // An optional object that is left empty needs none of what it would need.
  check() {
    if (this.error.textContent !== "") this.complain(null);
    if (!this.isRequired && this.read() === undefined) return true;
    return this.checkInside();
  }

  complain(message) {
    if (this.element === null) return !message; // the form as a whole says it
    return super.complain(message);
  }

  place([name, ...rest], message) {
    if (name === undefined) {
      if (this.element === null) return false;
      this.complain(message);
      return true;
    }
    return this.#fields.get(name)?.place(rest, message) || this.place([], message);
  }
}

/** A list: a field for each entry, which can be added and removed. */
export class ListField extends GroupField {
  #items = [];

  constructor(options, make) {
    super(options, make);
    this.list = element("ol", { class: "entries", "aria-label": this.title });
    this.more = button("Add", { class: "small", "aria-label": `Add to ${this.title}` }, () => {
      this.#add().focus();
      this.#changed();
    });
    this.element = this.group(this.list, this.more);
  }

  inside() {
    return this.#items;
  }

  read() {
    const values = this.#items.map((field) => field.read()).filter((value) => value !== undefined);
    return values.length > 0 || this.isRequired ? values : undefined;
  }

  state() {
    return this.#items.map((field) => field.state());
  }

  restore(states) {
    this.#fill(states, (field, state) => field.restore(state));
  }

  write(value) {
    this.#fill(value, (field, each) => field.write(each));
    if (this.#items.length === 0 && this.isRequired) this.#add();
  }

  #fill(values, put) {
    this.leave();
    this.#items = [];
    this.list.replaceChildren();
    for (const value of Array.isArray(values) ? values : []) put(this.#add(), value);
    this.#bound();
  }

  check() {
    const isWhole = this.checkInside();
    const length = this.read()?.length ?? 0;
    const isWanted = this.isRequired || length > 0;
    return this.complain(isWanted ? faultOfList(length, this.schema) : null) && isWhole;
  }

  // Entries that are empty are not sent: the service counts those that are.
  place([index, ...rest], message) {
    const sent = this.#items.filter((field) => field.read() !== undefined);
    if (index !== undefined && sent[Number(index)]?.place(rest, message)) return true;
    this.complain(message);
    return true;
  }

  #add() {
    const { items } = this.schema;
    const field = this.make({ schema: items, name: String(this.#items.length), isRequired: true, title: this.#titleAt(this.#items.length) });
    field.write(items.default);
    const remove = button("Remove", { class: "quiet", "aria-label": `Remove ${field.title}` }, () => this.#remove(field));
    this.#items.push(field);
    this.list.append(element("li", {}, field.element, remove));
    this.#bound();
    return field;
  }

  #remove(field) {
    const at = this.#items.indexOf(field);
    field.leave();
    this.#items.splice(at, 1);
    this.list.children[at].remove();
    this.#items.slice(at).forEach((each, index) => {
      each.retitle(this.#titleAt(at + index));
      this.list.children[at + index].lastElementChild.setAttribute("aria-label", `Remove ${each.title}`);
    });
    this.#bound();
    (this.#items[at] ?? this.#items.at(-1) ?? { focus: () => this.more.focus() }).focus();
    this.#changed();
  }

  #titleAt(index) {
    return `${titleOf(this.schema.items, "Entry")} ${index + 1}`;
  }

  #bound() {
    this.more.disabled = this.#items.length >= (this.schema.maxItems ?? Infinity);
  }

  // The form keeps what was entered whenever it hears of a change.
  #changed() {
    this.list.dispatchEvent(new Event("change", { bubbles: true }));
  }
}
