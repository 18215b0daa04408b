// Shows the routes of openapi.json and a form that sends a request for each. Text from answers is never used as markup.

const BASE = new URL("../", document.baseURI);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function resolve(schema, root) {
  if (schema?.$ref) return root.components.schemas[schema.$ref.split("/").pop()];
  return schema;
}

// Return an example value for a schema, as a starting point for the user.
function example(schema, root, depth = 0) {
  const found = resolve(schema, root) ?? {};
  if (depth > 4) return null;
  if (found.default !== undefined && found.type !== "object") return found.default;
  if (found.anyOf) return example(found.anyOf[0], root, depth + 1);
  if (found.enum) return found.enum[0];
  if (found.type === "array") return found.items ? [example(found.items, root, depth + 1)] : [];
  if (found.properties) {
    const shown = Object.entries(found.properties).filter(([, inner]) => inner.default === undefined || depth === 0);
    return Object.fromEntries(shown.map(([name, inner]) => [name, example(inner, root, depth + 1)]));
  }
  return { string: "", integer: 0, number: 0, boolean: false, object: {} }[found.type] ?? null;
}

async function send(event, method, path, fields, body, output) {
  event.preventDefault();
  const url = new URL(path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(fields[name].value)).slice(1), BASE);
  for (const [name, field] of Object.entries(fields)) {
    if (!path.includes(`{${name}}`) && field.value !== "") url.searchParams.append(name, field.value);
  }
  output.textContent = "…";
  try {
    const begun = performance.now();
    const options = body ? { method, body: body.value } : { method };
    const answer = await fetch(url, options);
    const text = await answer.text();
    const took = Math.round(performance.now() - begun);
    output.textContent = `${answer.status} ${answer.statusText}, ${took} ms\n\n${pretty(text)}`;
  } catch (error) {
    output.textContent = `The app does not answer: ${error.message}`;
  }
}

function pretty(text) {
  const shown = text.length > 200000 ? `${text.slice(0, 200000)}\n… ${text.length} characters in total` : text;
  try {
    return JSON.stringify(JSON.parse(shown), null, 2);
  } catch {
    return shown;
  }
}

function operationView(path, method, operation, root) {
  const fields = {};
  const form = element("form");
  for (const parameter of operation.parameters) {
    const field = element("input", { name: parameter.name, required: parameter.required, autocomplete: "off" });
    fields[parameter.name] = field;
    form.append(element("label", {}, parameter.required ? parameter.name : `${parameter.name} (optional)`, field));
  }
  let body = null;
  if (operation.requestBody) {
    const schema = operation.requestBody.content["application/json"].schema;
    body = element("textarea", { spellcheck: false, value: JSON.stringify(example(schema, root), null, 2) });
    form.append(element("label", {}, "body", body));
  }
  const output = element("pre", { hidden: true, tabIndex: 0 });
  form.append(element("button", {}, "Send"), output);
  form.addEventListener("submit", (event) => {
    output.hidden = false;
    send(event, method.toUpperCase(), path, fields, body, output);
  });
  const summary = element(
    "summary",
    {},
    element("span", { className: "method" }, method.toUpperCase()),
    element("code", {}, path),
    element("span", {}, operation.summary),
  );
  return element("details", {}, summary, form);
}

async function show() {
  const main = document.getElementById("operations");
  const answer = await fetch(new URL("api/v1/openapi.json", BASE));
  if (!answer.ok) {
    main.textContent = answer.status === 401 ? "A token is needed. Open the app with ?token=TOKEN first." : await answer.text();
    return;
  }
  const root = await answer.json();
  main.textContent = "";
  for (const { name } of root.tags) {
    main.append(element("h2", {}, name));
    for (const [path, operations] of Object.entries(root.paths)) {
      for (const [method, operation] of Object.entries(operations)) {
        if (operation.tags.includes(name)) main.append(operationView(path, method, operation, root));
      }
    }
  }
}

show();
