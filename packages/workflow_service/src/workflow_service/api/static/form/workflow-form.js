// The form of a workflow, made from the schema of its input.

import { byId, element } from "../lib/dom.js";
import { faultsOf } from "./faults.js";
import { makeField } from "./make-field.js";
import { makeOptionsField } from "./run-options.js";
import { kindOf } from "./schema.js";

export class WorkflowForm {
  #input;
  #options;
  #refresh;

  /** Put the fields for `schema` into the page's form. */
  constructor(schema) {
    const isObject = kindOf(schema) === "object";
    const title = "Input";
    this.#input = makeField(
      isObject
        ? { schema, name: "input_data", isRequired: true, isRoot: true }
        : { schema: { ...schema, type: "object", title, description: "The input as a JSON object" }, name: title, isRequired: true },
    );
    ({ field: this.#options, refresh: this.#refresh } = makeOptionsField());
    byId("workflow-fields").replaceChildren(...(this.#input.content ?? [this.#input.element]));
    byId("workflow-options").replaceChildren(...this.#options.content);
    if (!isObject) this.#input.write({});
  }

  /** Fill in the defaults, or an earlier run's input and options. */
  write(input, options) {
    if (input !== undefined || kindOf(this.#input.schema) === "object") this.#input.write(input);
    this.#options.write(options ?? {});
    this.#arrange();
  }

  state() {
    return { input: this.#input.state(), options: this.#options.state() };
  }

  restore({ input, options }) {
    this.#input.restore(input);
    this.#options.restore(options);
    this.#arrange();
  }

  input() {
    return this.#input.read();
  }

  options() {
    return this.#options.read();
  }

  /** Await uploads; then say what is wrong beside the fields. Returns whether all can be sent. */
  async check() {
    await this.#input.settle();
    const isWhole = [this.#input, this.#options].map((field) => field.check()).every(Boolean);
    this.#list([]);
    return isWhole;
  }

  /** Say what the service found wrong, beside the fields where it belongs. Returns false if it named no place. */
  blame(problem) {
    const roots = { input_data: this.#input, options: this.#options };
    const faults = faultsOf(problem);
    const rest = faults.filter(({ part, path, message }) => !roots[part]?.place(path, message));
    const named = (path) => (path.length > 0 ? `${path.join(" → ")}: ` : "");
    this.#list(rest.map(({ path, message }) => named(path) + message));
    return faults.length > 0;
  }

  leave() {
    this.#input.leave();
    this.#options.leave();
  }

  // Options that were set before should not hide.
  #arrange() {
    this.#refresh();
    byId("workflow-options-box").open = Object.keys(this.options()).length > 0;
  }

  // What is wrong once more, together, above the form: with many fields it may be out of sight.
  #list(others) {
    const wrong = [this.#input, this.#options].flatMap((field) => field.faulty());
    const box = byId("workflow-faults");
    const links = wrong.map((field) => {
      const link = element("button", { type: "button", class: "link" }, field.title);
      link.addEventListener("click", () => field.focus());
      return element("li", {}, link, `: ${field.error.textContent}`);
    });
    byId("workflow-faults-list").replaceChildren(...links, ...others.map((text) => element("li", {}, text)));
    box.hidden = links.length + others.length === 0;
    if (wrong.some((field) => byId("workflow-options").contains(field.control))) byId("workflow-options-box").open = true;
    if (!box.hidden) box.focus();
  }
}
