// The external services that workflows ask: what each offers, and whether it can be asked.

import { byId, element } from "../lib/dom.js";
import { explain, sentence } from "../lib/explain.js";
import * as service from "../lib/service.js";
import { hintOf } from "../form/schema.js";

export class ServicesView {
  #leaving = new AbortController();

  /** `onRefused(problem)` hears of a key that is no longer accepted. */
  constructor(onRefused) {
    this.onRefused = onRefused;
    byId("services-reload").addEventListener("click", () => this.open());
  }

  async open() {
    this.close();
    this.#leaving = new AbortController();
    const { signal } = this.#leaving;
    this.#say("");
    byId("services-empty").hidden = true;
    try {
      const { services } = await service.listServices(signal);
      byId("services").replaceChildren(...services.map(card));
      byId("services-empty").hidden = services.length > 0;
    } catch (error) {
      if (signal.aborted) return;
      if (explain(error).status === 401) this.onRefused(error);
      else this.#say(sentence(error));
    }
  }

  close() {
    this.#leaving.abort();
  }

  #say(text) {
    byId("services-error").textContent = text;
    byId("services-reload").hidden = text === "";
  }
}

function card({ name, description, is_configured: isConfigured, operations }) {
  const state = element("span", { class: "status", "data-status": isConfigured ? "succeeded" : "dead" }, isConfigured ? "Ready" : "Not set up");
  const setting = element("code", {}, `WORKFLOW_SERVICES__${name.toUpperCase()}__API_KEY`);
  const needs = isConfigured ? null : element("p", { class: "hint" }, "It needs a key of its provider: whoever runs the service sets ", setting, ".");
  return element(
    "li",
    { class: "card" },
    element("div", { class: "row spread" }, element("h2", {}, name), state),
    element("p", {}, description),
    needs,
    ...Object.entries(operations).map(([operation, schema]) => details(operation, schema)),
  );
}

function details(operation, schema) {
  const { description = "", properties = {}, required = [] } = schema;
  const rows = Object.entries(properties).map(([name, property]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, element("code", {}, name)),
      element("td", {}, [typeOf(property), required.includes(name) ? "" : "optional"].filter(Boolean).join(", ")),
      element("td", {}, hintOf(property)),
    ),
  );
  const head = element("tr", {}, ...["Parameter", "Type", "What it is"].map((text) => element("th", { scope: "col" }, text)));
  const table = element("div", { class: "table", tabindex: "0", role: "region", "aria-label": `Parameters of ${operation}` }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
  return element("details", {}, element("summary", {}, element("code", {}, operation)), description ? element("p", {}, description) : null, rows.length > 0 ? table : element("p", { class: "hint" }, "It takes no parameters."));
}

function typeOf({ enum: values, type = [] }) {
  return values === undefined ? [type].flat().join(" or ") : `one of ${values.map(String).join(", ")}`;
}
