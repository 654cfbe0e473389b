// Where in a form belongs what the service says is wrong.

/** `{part, path, message}` of each fault in a Problem: part is "input_data", "options" or null for neither. */
export function faultsOf(problem) {
  if (problem.faults.length > 0) {
    return problem.faults.map(({ field, message }) => ({ ...placeOf(String(field ?? "")), message: String(message ?? "") }));
  }
  // "input_data.items[3] holds a NUL character": a sentence that begins with the place.
  const match = /^((?:input_data|options)(?:\.[^\s.[\]:]+|\[\d+\])+):?\s+(.+)$/s.exec(problem.detail);
  return match === null ? [] : [{ ...placeOf(match[1]), message: match[2] }];
}

function placeOf(field) {
  const steps = field.replaceAll(/\[(\d+)\]/g, ".$1").split(/[./]/).filter((step) => step !== "");
  if (steps[0] === "body") steps.shift();
  const isKnown = ["input_data", "options"].includes(steps[0]);
  return { part: isKnown ? steps[0] : null, path: isKnown ? steps.slice(1) : steps };
}
