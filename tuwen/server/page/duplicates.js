// Pictures that look nearly the same, as groups.
import { html } from "./vendor/preact.js";
import { useApp, useLoad } from "./app.js";
import { duplicates } from "./api.js";
import { Tile } from "./grid.js";
import { Button, Failure, Skeleton, State } from "./parts.js";

const area = (hit) => (hit.width || 0) * (hit.height || 0);

export function Duplicates() {
  const { t, selection } = useApp();
  const { data, error, reload } = useLoad("duplicates", duplicates);
  const groups = (data?.groups || []).map((group) => [...group].sort((a, b) => area(b) - area(a)));
  const rest = groups.flatMap(([, ...others]) => others);
  return html`<section class="page wide" aria-labelledby="title">
    <h1 id="title">${t("dup_title")}${groups.length > 0 && html` <span class="count">${t("dup_groups", { n: groups.length })}</span>`}</h1>
    <p class="lead">${t("dup_note")}</p>
    ${error ? html`<${Failure} error=${error} again=${reload} />` : !data ? html`<${Skeleton} count=${6} />` : !groups.length
      ? html`<${State} icon="copies" title=${t("dup_none")} />`
      : html`<p><${Button} kind="quiet" icon="check" onClick=${() => selection.add(rest)}>${t("dup_rest")}</${Button}></p>
        ${groups.map((group) => html`<ul key=${group[0].file} class=${`grid group${selection.active ? " choosing" : ""}`}>
          ${group.map((hit, n) => html`<${Same} key=${hit.file} hit=${hit} group=${group} largest=${n === 0 && area(hit) > area(group[1])} />`)}</ul>`)}`}
  </section>`;
}

function Same({ hit, group, largest }) {
  const { t } = useApp();
  return html`<li class="same" style=${{ "--r": Math.min(2.6, Math.max(0.55, hit.width && hit.height ? hit.width / hit.height : 1)) }}>
    <${Tile} as="div" hit=${hit} hits=${group} />
    <p class="pixels"><span>${hit.width} × ${hit.height}</span>${largest && html`<b>${t("dup_largest")}</b>`}</p>
    <p class="path" title=${hit.file}><bdi>${hit.file}</bdi></p>
  </li>`;
}
