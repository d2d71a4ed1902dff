"use strict";
// The gallery of a report: orders and filters images, and colours their packed label maps (wsss/report/thumbnails.py).
(() => {
  const CHUNK = 60; // tiles that are added at a time
  const LEAST = 10; // thousandths of an image: errors of fewer pixels do not count for the filter
  const IGNORED = 255;

  const data = JSON.parse(document.getElementById("gallery-data").textContent);
  const byId = (id) => document.getElementById(id);
  const made = (tag, name, text) => Object.assign(document.createElement(tag), { className: name ?? "", textContent: text ?? "" });
  const percent = (share) => (share === null ? "-" : `${(100 * share).toFixed(1)}%`);

  // What can be shown of an image: the photo, class maps and label maps of each layer, and the truth.
  const panels = [{ title: "image", pack: () => "" }];
  data.layers.forEach((layer, k) => {
    if (data.images.some((image) => image.scores[k])) {
      panels.push({ title: layer.class_map, pack: (image) => image.scores[k] });
    }
    panels.push({ title: layer.title, layer: k, pack: (image) => image.maps[k] });
  });
  if (data.images.some((image) => image.truth)) panels.push({ title: "truth", pack: (image) => image.truth });

  let shown = []; // the images that pass the filters, in order
  let opened = 0; // the one in the dialog
  let panelsShown = panels;

  // --- packed maps -----------------------------------------------------------------------------------------------

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const plain = new Uint8Array(await new Response(stream).arrayBuffer());
    const height = plain[0] + 256 * plain[1], width = plain[2] + 256 * plain[3], pixels = height * width;
    return { height, width, index: plain.subarray(4, 4 + pixels), score: plain.subarray(4 + pixels) };
  }

  async function colour(canvas, text) {
    const { height, width, index, score } = await unpack(text);
    const picture = new ImageData(width, height);
    for (let i = 0; i < index.length; i++) {
      if (index[i] === 0) continue;
      const stripe = (i % width + Math.floor(i / width)) % 6 < 3 ? 255 : 70;
      const rgb = index[i] === IGNORED ? [stripe, stripe, stripe] : data.colours[index[i]];
      picture.data.set([...rgb, score.length ? Math.sqrt(255 * score[i]) : 255], 4 * i);
    }
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d").putImageData(picture, 0, 0);
  }

  // --- tiles -----------------------------------------------------------------------------------------------------

  // What images are ordered by: doubt, agreement or otherwise IoU.
  function figureOf(image, layer) {
    const shares = { doubt: image.doubt, agreement: image.agreement }[byId("order").value] ?? image.iou;
    const share = shares[layer] ?? null;
    return share === null ? "" : percent(share);
  }

  function panelOf(image, panel) {
    const one = made("span", "panel"), text = panel.pack(image);
    const frame = one.appendChild(made("span", text ? "frame mapped" : "frame"));
    frame.style.aspectRatio = `${image.size[1] || 4} / ${image.size[0] || 3}`;
    if (image.photo) frame.append(Object.assign(made("img"), { alt: "", src: `data:image/webp;base64,${image.photo}` }));
    if (text) frame.append(Object.assign(made("canvas"), { packed: text }));
    const caption = one.appendChild(made("span", "caption"));
    caption.append(made("span", "", panel.title), made("b", "", figureOf(image, panel.layer)));
    return one;
  }

  function tileOf(image, number) {
    const item = made("li"), button = item.appendChild(made("button"));
    button.type = "button";
    button.tabIndex = number === 0 ? 0 : -1;
    button.append(made("span", "name", image.name), made("span", "panels"));
    button.lastChild.append(...panelsShown.filter((panel) => panel.pack(image) || panel === panels[0]).map((panel) => panelOf(image, panel)));
    button.addEventListener("click", () => open(number));
    near.observe(item);
    return item;
  }

  // Canvases take memory: only those near the window are drawn.
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      for (const canvas of target.querySelectorAll("canvas")) {
        if (isIntersecting) colour(canvas, canvas.packed);
        else canvas.width = 0;
      }
    }
  }, { rootMargin: "400px" });

  function more() {
    const have = byId("tiles").childElementCount;
    byId("tiles").append(...shown.slice(have, have + CHUNK).map((image, k) => tileOf(image, have + k)));
  }

  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) more();
  }, { rootMargin: "800px" }).observe(byId("end"));

  function focusOn(number) {
    const tiles = byId("tiles");
    while (tiles.childElementCount <= number && tiles.childElementCount < shown.length) more();
    const button = tiles.children[Math.max(0, Math.min(number, shown.length - 1))]?.firstChild;
    if (!button) return;
    for (const other of tiles.querySelectorAll("button[tabindex='0']")) other.tabIndex = -1;
    button.tabIndex = 0;
    button.focus();
  }

  byId("tiles").addEventListener("keydown", (event) => {
    const items = [...byId("tiles").children], at = items.indexOf(event.target.closest("li"));
    const columns = Math.max(1, items.findIndex((item) => item.offsetTop > items[0].offsetTop));
    const to = {
      ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, Home: 0, End: shown.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    focusOn(to);
  });

  // --- order and filters -----------------------------------------------------------------------------------------

  const value = (id) => (byId(id).value === "" ? null : Number(byId(id).value));

  // The share of an image, in thousandths, that a layer loses by a kind of error; of one class or of all.
  function lost(image, layer, kind, index) {
    return image.errors[layer].reduce((sum, [c, e, share]) => sum + (e === kind && (index === null || c === index) ? share : 0), 0);
  }

  function update() {
    const layer = value("layer"), index = value("class"), kind = data.layers[layer].judged ? value("kind") : null;
    const name = byId("name").value.toLowerCase(), order = byId("order").value;
    const badness = (image) => (kind !== null ? lost(image, layer, kind, index) : image.iou[layer] === null ? null : 1 - image.iou[layer]);
    const rank = { worst: badness, best: (image) => badness(image) === null ? null : -badness(image), doubt: (image) => image.doubt[layer],
      agreement: (image) => (image.agreement[layer] === null ? null : -image.agreement[layer]) }[order];
    shown = data.images.filter((image) => image.maps[layer]
      && image.name.toLowerCase().includes(name)
      && (kind !== null ? lost(image, layer, kind, index) >= LEAST : index === null || image.classes.includes(index)));
    shown.sort((a, b) => a.name < b.name ? -1 : 1);
    if (rank) shown.sort((a, b) => (rank(b) ?? -Infinity) - (rank(a) ?? -Infinity) || 0);
    byId("count").textContent = `${shown.length} of ${data.images.length} images`;
    near.disconnect();
    byId("tiles").replaceChildren();
    more();
  }

  function offerOrders() {
    const layer = data.layers[value("layer")], before = byId("order").value;
    const orders = layer.judged ? [["worst", "worst first"], ["best", "best first"]] : [];
    orders.push(["doubt", "most doubtful first"]);
    if (data.images.some((image) => image.agreement[value("layer")] !== null)) orders.push(["agreement", "least agreement first"]);
    orders.push(["name", "by name"]);
    byId("order").replaceChildren(...orders.map(([key, words]) => new Option(words, key)));
    byId("order").value = orders.some(([key]) => key === before) ? before : orders[0][0];
    byId("kinds").hidden = !layer.judged;
  }

  panels.forEach((panel) => {
    const label = made("label"), box = label.appendChild(made("input"));
    box.type = "checkbox";
    box.checked = true;
    label.append(panel.title);
    byId("panels").append(label);
  });

  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("tools").addEventListener("input", (event) => {
    if (event.target.id === "strength") {
      document.documentElement.style.setProperty("--strength", event.target.value / 100);
      return;
    }
    const boxes = [...byId("panels").querySelectorAll("input")];
    panelsShown = panels.filter((panel, k) => boxes[k].checked);
    if (event.target.id === "layer") offerOrders();
    update();
  });

  // --- one image, large ------------------------------------------------------------------------------------------

  function drawn(image, panel) {
    const one = panelOf(image, panel);
    for (const canvas of one.querySelectorAll("canvas")) colour(canvas, canvas.packed);
    return one;
  }

  function figures(image) {
    const table = made("table"), head = table.createTHead().insertRow(), body = table.createTBody();
    for (const title of ["label maps", "IoU", "doubt", "agreement", "largest errors"]) head.append(Object.assign(made("th", "", title), { scope: "col" }));
    data.layers.forEach((layer, k) => {
      if (!image.maps[k]) return;
      const row = body.insertRow();
      const errors = [...image.errors[k]].sort((a, b) => b[2] - a[2]).slice(0, 3)
        .map(([c, e, share]) => `${data.classes[c]} ${data.kinds[e]} ${percent(share / 1000)}`);
      row.append(Object.assign(made("th", "", layer.title), { scope: "row" }));
      row.append(...[percent(image.iou[k]), percent(image.doubt[k]), percent(image.agreement[k]), errors.join(", ") || "-"].map((text) => made("td", "words", text)));
    });
    return table;
  }

  function compare() {
    const image = shown[opened];
    byId("stage").replaceChildren(...["left", "right"].map((id) => drawn(image, panels[value(id)])));
  }

  function open(number) {
    opened = number;
    const image = shown[number];
    byId("large-name").textContent = image.name;
    byId("large-panels").replaceChildren(...panels.filter((panel) => panel.pack(image) || panel === panels[0]).map((panel) => drawn(image, panel)));
    byId("large-figures").replaceChildren(figures(image));
    byId("before").disabled = number === 0;
    byId("after").disabled = number === shown.length - 1;
    compare();
    if (!byId("large").open) byId("large").showModal();
  }

  function step(by) {
    if (shown[opened + by]) open(opened + by);
  }

  for (const id of ["left", "right"]) {
    byId(id).append(...panels.map((panel, k) => new Option(panel.title, k)));
    byId(id).addEventListener("input", compare);
  }
  byId("right").value = panels.findIndex((panel) => panel.layer === 0);
  byId("wipe").addEventListener("input", () => byId("stage").style.setProperty("--wipe", `${byId("wipe").value}%`));
  byId("before").addEventListener("click", () => step(-1));
  byId("after").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => byId("large").close());
  byId("large").addEventListener("close", () => focusOn(opened));
  byId("large").addEventListener("keydown", (event) => {
    if (event.target.closest("input, select")) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });

  offerOrders();
  update();
})();
