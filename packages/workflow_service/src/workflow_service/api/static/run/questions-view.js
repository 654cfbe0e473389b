// What a run asks the person: a form for each question, and the answers back to it.

import { byId, element, say } from "../lib/dom.js";
import { explain, sentence } from "../lib/explain.js";
import * as service from "../lib/service.js";
import { makeField } from "../form/make-field.js";
import { dataTree } from "./data-tree.js";

const TEXT = { type: "string", format: "multiline" }; // what is asked for where a question does not say

export class QuestionsView {
  #id = null;
  #fields = new Map(); // by the question's id

  /** `onAnswered(run)` hears of a run that goes on, `onStale()` of one that does not wait any more, `onRefused(problem)` of a key. */
  constructor({ onAnswered, onStale, onRefused }) {
    this.onAnswered = onAnswered;
    this.onStale = onStale;
    this.onRefused = onRefused;
    byId("questions-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
  }

  /** Ask: `questions` are `{id, value}`, where a value may have a `question` in words and the `schema` of its answer. */
  show(id, questions) {
    const ids = questions.map((each) => each.id);
    if (this.#id === id && ids.length === this.#fields.size && ids.every((each) => this.#fields.has(each))) return;
    this.close();
    this.#id = id;
    byId("questions-list").replaceChildren(...questions.map((each) => this.#ask(each)));
    byId("questions").hidden = questions.length === 0;
  }

  close() {
    for (const field of this.#fields.values()) field.leave();
    this.#id = null;
    this.#fields.clear();
    byId("questions").hidden = true;
    byId("questions-list").replaceChildren();
    say(byId("questions-refused"), "");
  }

  #ask({ id, value }) {
    const { question, schema, ...rest } = isObject(value) ? value : { question: value };
    const words = typeof question === "string" ? question : null;
    const shown = words === null ? value : rest;
    const title = words ?? "Your answer";
    const field = makeField({ schema: isObject(schema) ? schema : TEXT, name: "answer", title, isRequired: true });
    field.write(schema?.default);
    this.#fields.set(id, field);
    const more = words !== null && Object.keys(rest).length === 0 ? null : dataTree(shown);
    return element("div", { class: "fields" }, more, field.element);
  }

  async #send() {
    await Promise.all([...this.#fields.values()].map((field) => field.settle()));
    if (![...this.#fields.values()].map((field) => field.check()).every(Boolean)) return;
    const id = this.#id;
    const answers = Object.fromEntries([...this.#fields].map(([question, field]) => [question, field.read()]));
    byId("questions-send").disabled = true;
    say(byId("questions-refused"), "");
    try {
      const run = await service.answerRun(id, answers);
      if (this.#id === id) this.onAnswered(run);
    } catch (error) {
      if (explain(error).status === 401) this.onRefused(error);
      else if (this.#id === id) {
        say(byId("questions-refused"), sentence(error));
        if (error.status === 409) this.onStale();
      }
    } finally {
      byId("questions-send").disabled = false;
    }
  }
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
