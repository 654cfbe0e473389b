// Jobs, pools and calls: what runs for whom, and what it shares.

import { byId, element, keepList, setAttribute, setText } from "./dom.js";
import { age, loopName } from "./words.js";

function cells(...labels) {
  return () => element("tr", {}, element("th", { scope: "row" }), ...labels.map((label) => element("td", { "data-label": label })));
}

function fill(row, ...texts) {
  texts.forEach((text, at) => setText(row.children[at], text));
}

export function showJobs(detail) {
  const loops = new Map(detail.report.loops.map((loop) => [loop.home.loop, loop]));
  byId("jobs-section").hidden = detail.jobs.length === 0;
  keepList(
    byId("jobs"),
    detail.jobs,
    (job) => JSON.stringify([job.loop, job.labels]),
    () => element("tr", {}, element("th", { scope: "row" }, element("dl", { class: "labels" })), ...["Loop and thread", "Waits at", "Tasks", "Known for"].map((label) => element("td", { "data-label": label, class: label.includes("at") ? null : "brief" }))),
    (row, job) => {
      const loop = loops.get(job.loop);
      const [labels, where, waits, tasks, known] = row.children;
      keepList(labels.firstElementChild, Object.entries(job.labels), ([name]) => name, ([name]) => element("div", {}, element("dt", {}, name), element("dd")), (pair, [, value]) => setText(pair.lastElementChild, value));
      setText(where, loop === undefined ? loopName(loop) : `${loopName(loop)}, thread ${loop.home.thread}`);
      setText(waits, job.waiting_at.slice(-2).join(" › ") || "runs now");
      setText(tasks, job.tasks);
      setText(known, age(job.oldest));
    },
  );
}

export function showPools(report) {
  const rows = report.resources.flatMap((resource) => {
    const instances = resource.statistics.instances;
    return instances.length === 0 ? [{ resource, instance: null, at: 0 }] : instances.map((instance, at) => ({ resource, instance, at }));
  });
  byId("pools-section").hidden = rows.length === 0;
  keepList(byId("pools"), rows, ({ resource, instance, at }) => `${resource.name} ${instance?.home.loop} ${at}`, makePool, fillPool);
}

const makePool = () =>
  element(
    "tr",
    {},
    element("th", { scope: "row" }),
    element("td", { "data-label": "Loop" }),
    element("td", { "data-label": "In use" }, element("meter", { min: 0 }), element("span", { class: "number" })),
    element("td", { "data-label": "Waiting" }),
    element("td", { "data-label": "Opened, closed, failed" }),
  );

function fillPool(row, { resource, instance }) {
  const [name, loop, use, waiting, life] = row.children;
  const [meter, words] = use.children;
  const { statistics } = resource;
  const pool = instance?.pool ?? null;
  setText(name, resource.name);
  setText(loop, instance === null ? "none is open" : `loop ${instance.home.loop}, ${instance.home.thread}`);
  meter.hidden = pool === null || pool.limit === null;
  if (!meter.hidden) {
    setAttribute(meter, "max", pool.limit);
    setAttribute(meter, "high", pool.limit - 0.5);
    setAttribute(meter, "optimum", 0);
    setAttribute(meter, "value", pool.in_use);
    setAttribute(meter, "aria-label", `Connections of ${resource.name} in use`);
  }
  const leases = instance?.leases ?? 0;
  setText(words, pool === null ? `${leases} leases` : `${pool.in_use}${pool.limit === null ? "" : ` of ${pool.limit}`}, ${pool.size} open`);
  const waits = (pool?.waiting ?? 0) + statistics.waiting;
  setText(waiting, waits);
  setAttribute(row, "data-bad", waits > 0);
  setText(life, `${statistics.opened}, ${statistics.closed}, ${statistics.failed}`);
}

export function showCalls(report) {
  byId("calls-section").hidden = report.runtimes.length === 0;
  keepList(byId("calls"), report.runtimes, (each) => each.name, cells("In flight", "Waiting", "Abandoned", "Finished", "Restarts", "Threads"), (row, { name, statistics }) => {
    const { workers } = statistics;
    fill(
      row,
      name,
      statistics.in_flight,
      statistics.waiting,
      [statistics.abandoned, ...statistics.abandoned_calls.map((call) => call.what)].join(" "),
      statistics.finished,
      statistics.restarts,
      workers === null ? "none" : `${workers.busy} of ${workers.size} busy, ${workers.queued} jobs wait`,
    );
    setAttribute(row, "data-bad", statistics.waiting + statistics.abandoned > 0);
  });
}
