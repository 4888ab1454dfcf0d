// A picture that was dropped, pasted or chosen: it stands over what was found, and can be described and asked about.
import { html, useState } from "./vendor/preact.js";
import { useApp } from "./app.js";
import { Ask, Describe, Heat } from "./ask.js";
import { Field } from "./parts.js";
import { go, here } from "./route.js";

export function Dropped({ image }) {
  const { t, route } = useApp();
  const [size, measure] = useState(null);
  const [attention, look] = useState(null);
  return html`<div class="dropped">
    <div class="frame">
      <img src=${image.url} alt=${t("your_picture")} onLoad=${({ currentTarget: { naturalWidth, naturalHeight } }) => measure([naturalWidth, naturalHeight])} />
      ${attention && size && html`<${Heat} attention=${attention} width=${size[0]} height=${size[1]} />`}
    </div>
    <div class="beside">
      ${route.q && html`<label class="slider"><span>${t("words_or_picture")}</span>
        <span class="ends"><span>${t("words_more")}</span>
        <${Field} type="range" min="0.1" max="0.9" step="0.1" value=${route.weight || "0.5"} aria-label=${t("words_or_picture")}
          commit=${(weight) => go({ ...here(), weight }, { replace: true })} />
        <span>${t("picture_more")}</span></span></label>`}
      <${Describe} of=${{ file: image.file }} />
      <${Ask} of=${{ file: image.file }} look=${look} looking=${attention} />
    </div>
  </div>`;
}
