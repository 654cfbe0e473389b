// Where in a form belongs what the service says is wrong.

/** `{part, path, message}` of each fault in a Problem: part is "input_data", "options" or null for neither. */
export function faultsOf(problem) {
  return problem.faults.map(({ field, message }) => ({ ...placeOf(String(field ?? "")), message: String(message ?? "") }));
}

function placeOf(field) {
  const steps = field.replaceAll(/\[(\d+)\]/g, ".$1").split(/[./]/).filter((step) => step !== "");
  const isKnown = ["input_data", "options"].includes(steps[0]);
  return { part: isKnown ? steps[0] : null, path: isKnown ? steps.slice(1) : steps };
}
