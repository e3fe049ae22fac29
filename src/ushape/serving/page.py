"""Page with the list of requests and a form to try the model, made without other servers."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color-scheme: light dark; }
code, pre { font-size: 0.9em; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: 0.3rem 1rem 0.3rem 0;
  border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
td { overflow-wrap: anywhere; }
ul { margin: 0.3rem 0; padding-left: 1.2rem; }
label { display: block; margin: 0.5rem 0; }
input { max-width: 100%; }
img { max-width: 100%; image-rendering: pixelated; }
"""

SCRIPT = """
const form = document.querySelector('form');
form.addEventListener('submit', async event => {
  event.preventDefault();
  const status = document.querySelector('#status');
  const token = form.elements.token.value;
  const data = new FormData();
  for (const file of form.elements.image.files) data.append('image', file);
  status.textContent = 'Predicting ...';
  try {
    const answer = await fetch('predict?form=' + form.elements.form.value, {
      method: 'POST', body: data, headers: token ? {Authorization: 'Bearer ' + token} : {}});
    if (!answer.ok) {
      const error = await answer.json();
      status.textContent = `${error.message} ${error.hint}`;
      return;
    }
    const url = URL.createObjectURL(await answer.blob());
    const link = document.createElement('a');
    link.href = url;
    link.textContent = 'Save the result';
    const named = /filename="(.*)"/.exec(answer.headers.get('content-disposition'));
    link.download = named ? named[1] : 'result';
    status.replaceChildren(link);
    const picture = document.querySelector('#picture');
    picture.hidden = !answer.headers.get('content-type').startsWith('image/png');
    picture.src = picture.hidden ? '' : url;
  } catch (error) {
    status.textContent = 'The server cannot be reached.';
  }
});
"""


def content_policy() -> str:
    """Return the header Content-Security-Policy, which allows only what is in the page."""

    def mark(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {mark(SCRIPT)}; style-src {mark(STYLE)}; "
        "connect-src 'self'; img-src blob: data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )


def render_page(schema: Mapping[str, Any], forms: tuple[str, ...]) -> str:
    """Return the page for an OpenAPI description.

    Args:
        forms: Forms of an answer that can be chosen.
    """
    rows = [
        f"<tr><td><code>{method.upper()} {escape(path)}</code></td>"
        f"<td>{escape(operation.get('description') or operation.get('summary', ''))}"
        f"{_list_parameters(operation)}</td></tr>"
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]
    options = "".join(f"<option>{escape(one)}</option>" for one in forms)
    title = escape(schema["info"]["title"])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><style>{STYLE}</style></head><body><main>
<h1>{title}</h1>
<p>{escape(schema["info"]["description"])}
For programs: <a href="openapi.json">openapi.json</a>.</p>
<h2>Try it</h2>
<form><label>Images <input name="image" type="file" multiple required></label>
<label>Answer <select name="form">{options}</select></label>
<label>Token, if the server requires one <input name="token" type="password"
autocomplete="off"></label><button>Predict</button></form>
<p id="status" role="status"></p><img id="picture" alt="Result" hidden>
<h2>Requests</h2>
<table><thead><tr><th>Request</th><th>Purpose</th></tr></thead><tbody>{"".join(rows)}</tbody></table>
</main><script>{SCRIPT}</script></body></html>
"""


def _list_parameters(operation: Mapping[str, Any]) -> str:
    items = [
        f"<li><code>{escape(one['name'])}</code>: {escape(one.get('description', ''))}</li>"
        for one in operation.get("parameters", [])
        if one.get("description")
    ]
    return f"<ul>{''.join(items)}</ul>" if items else ""
