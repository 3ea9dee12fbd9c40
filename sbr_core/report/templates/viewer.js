// The viewer of a brain's page. Nothing is fetched: pictures are those of the page's own <img>, and
// every name is set as text.

(function () {
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const byId = (id) => document.getElementById(id);
  const root = byId("viewer");
  const isStill = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const BLINK_MS = 700;
  const SIGNS = { accept: "✓", reject: "✕", exclude: "⊘" };
  const SAID = { accept: "accepted", reject: "rejected", exclude: "excluded" };
  const HEAT = [[255, 245, 190], [254, 190, 75], [230, 95, 40], [130, 10, 40]];
  const MODES = ["opacity", "blink", "slider", "checkerboard", "beside"];
  const OVERLAYS = ["edges", "grid", "error"];
  const printed = document.querySelectorAll("img[data-picture]");
  const places = new Map(); // name of a picture -> the <img> that has its address
  for (const image of printed) {
    image.dataset.src = image.getAttribute("src");
    if (!places.has(image.dataset.picture)) places.set(image.dataset.picture, image);
    image.removeAttribute("src"); // until it comes into view
  }
  const corrections = new Corrections(data.brain, data.key, data.sections);
  const state = {
    index: 0, order: data.sections.map((_, index) => index), a: "", b: "mri", mode: "opacity",
    amounts: { opacity: 0, slider: 50 }, overlays: new Set(["edges"]), isLandmarking: false, pending: {}, blinkOn: true,
  };
  let timer = 0;
  let ahead = []; // pictures of the neighbours, so that they are there at once
  let hasUnsaved = false;

  const planeView = { zoom: 1, x: 0, y: 0 };
  const handlers = {
    point: setPoint,
    move: moved,
    view: () => panes.forEach((pane) => pane.draw()),
    grabs: (pane, at) => pane === plane && state.mode === "slider" && pane.grid !== null &&
      Math.abs(at[0] - dividerX()) < 14,
    drag: (pane, at) => {
      setAmount(100 * pane.toPicture(at)[0] / pane.grid.width);
    },
  };
  const keysWords = "Arrow keys move the cross, Enter sets a landmark's point, + and - zoom.";
  const plane = new Pane("v-plane", `Section on its MRI plane. ${keysWords}`, planeView, handlers);
  const second = new Pane("v-second", `Second layer. ${keysWords}`, planeView, handlers);
  const prepared = new Pane(
    "v-prepared", `Section as prepared. ${keysWords}`, { zoom: 1, x: 0, y: 0 }, handlers);
  const panes = [plane, second, prepared];

  const current = () => data.sections[state.index];
  const decision = () => corrections.of(current().name);
  const say = (words) => { byId("v-status").textContent = words; };

  // ---- what can be shown -----------------------------------------------------------------------

  function layersOf(section) {
    const found = new Map();
    const layers = section.layers;
    if (!layers) return found;
    found.set("mri", { name: "MRI plane", picture: layers.mri });
    for (const [method, pictures] of Object.entries(layers.methods)) {
      found.set(method, { name: `section by ${method}`, picture: pictures.registered });
      if (pictures.synthesised) {
        found.set(`${method} synthesised`, {
          name: `section as MRI, synthesised by ${method}`, picture: pictures.synthesised,
        });
      }
    }
    return found;
  }

  const methodOf = (layer) => layer.replace(/ synthesised$/, "");

  // of the two layers the first that is a method's, else the one that is taken for the best
  function shownMethod() {
    const found = [state.a, state.b].map(methodOf).find((name) => data.methods.includes(name));
    return found || favourite();
  }

  function favourite() {
    const best = ["coherent", "sbr"].find((name) => data.methods.includes(name));
    return best || data.methods[data.methods.length - 1] || "";
  }

  const addressOf = (picture) => places.get(picture).dataset.src;

  function imageOf(picture, alt, className) {
    const canvas = drawing(addressOf(picture), alt, () => { byId("lost-pictures").hidden = false; });
    if (className) canvas.className = className;
    return canvas;
  }

  function options(select, entries, chosen) {
    select.replaceChildren(...entries.map(([value, name]) => {
      const option = document.createElement("option");
      option.value = value;
      option.textContent = name;
      option.selected = value === chosen;
      return option;
    }));
  }

  // ---- drawing ---------------------------------------------------------------------------------

  function showSection() {
    const section = current();
    state.pending = {};
    byId("v-name").textContent = section.name;
    byId("v-at").textContent = section.position_mm === null ? ""
      : `at ${Number(section.position_mm.toFixed(3))} mm`;
    byId("v-count").textContent = `${state.order.indexOf(state.index) + 1} of ${data.sections.length}`;
    byId("v-section").value = String(state.index);
    const layers = layersOf(section);
    const entries = [...layers].map(([key, layer]) => [key, layer.name]);
    if (!layers.has(state.a)) state.a = layers.has(favourite()) ? favourite() : [...layers.keys()][1] || "mri";
    if (!layers.has(state.b)) state.b = "mri";
    options(byId("v-a"), entries, state.a);
    options(byId("v-b"), entries, state.b);
    showPictures();
    showFacts();
    showDecision();
    markStrip();
    loadAhead();
  }

  function showPictures() {
    const section = current();
    const layers = layersOf(section);
    const isBeside = state.mode === "beside";
    byId("v-second").hidden = !isBeside || !section.layers;
    byId("v-none").hidden = Boolean(section.layers);
    byId("v-plane").hidden = !section.layers;
    const hasPrepared = Boolean(section.layers && section.layers.prepared);
    byId("v-prepared").hidden = !(hasPrepared && byId("v-with-prepared").checked);
    for (const overlay of OVERLAYS) {
      const input = byId(`v-${overlay}`);
      input.disabled = !overlayPicture(section, overlay);
      input.checked = state.overlays.has(overlay);
    }
    if (section.layers) {
      const [first, other] = [layers.get(state.a), layers.get(state.b)];
      const images = [imageOf(first.picture, `section ${section.name}, ${first.name}`)];
      if (!isBeside) {
        images.push(imageOf(other.picture, `section ${section.name}, ${other.name}`, "v-over"));
      }
      plane.show(section.layers.plane, [...images, ...overlayImages(section)]);
      plane.caption.textContent = isBeside ? first.name : `${first.name}, over it ${other.name}`;
      second.show(isBeside ? section.layers.plane : null, isBeside ? [
        imageOf(other.picture, `section ${section.name}, ${other.name}`), ...overlayImages(section),
      ] : []);
      second.caption.textContent = other.name;
    } else {
      plane.show(null, []);
      second.show(null, []);
    }
    prepared.show(hasPrepared ? section.layers.prepared_grid : null, hasPrepared
      ? [imageOf(section.layers.prepared, `section ${section.name} as prepared`)] : []);
    blend();
  }

  function overlayPicture(section, overlay) {
    if (!section.layers) return "";
    if (overlay === "edges") return section.layers.edges;
    const method = section.layers.methods[shownMethod()];
    return (method && method[overlay]) || "";
  }

  function overlayImages(section) {
    const names = { edges: "outlines of the MRI", grid: "deformed grid", error: "expected error" };
    return OVERLAYS.filter((overlay) => state.overlays.has(overlay) && overlayPicture(section, overlay))
      .map((overlay) => imageOf(overlayPicture(section, overlay), names[overlay], `v-${overlay}-layer`));
  }

  // how much of the second layer, or where the divider is: each mode has its own
  const amount = () => state.amounts[state.mode] ?? 0;

  const dividerX = () => plane.toFrame([plane.grid.width * amount() / 100, 0])[0];

  // how the second layer lies over the first
  function blend() {
    const over = plane.world.querySelector(".v-over");
    byId("v-amount-row").hidden = !["opacity", "slider"].includes(state.mode);
    byId("v-amount").value = String(amount());
    byId("v-amount-name").textContent = state.mode === "slider" ? "Divider" : "Second layer";
    byId("v-divider").hidden = state.mode !== "slider" || !over;
    if (!over) return;
    over.style.opacity = state.mode === "opacity" ? amount() / 100 : 1;
    over.style.clipPath = state.mode === "slider" ? `inset(0 0 0 ${amount()}%)` : "";
    const { width } = plane.grid;
    const board = state.mode === "checkerboard"
      ? "repeating-conic-gradient(#000 0 25%, transparent 0 50%)" : "";
    over.style.maskImage = board;
    over.style.maskSize = board ? `${width / 4}px ${width / 4}px` : "";
    over.style.visibility = state.mode === "blink" && !state.blinkOn ? "hidden" : "";
    if (state.mode === "slider") byId("v-divider").style.left = `${dividerX()}px`;
  }

  function setMode(mode) {
    state.mode = mode;
    state.blinkOn = true;
    window.clearInterval(timer);
    timer = 0;
    if (mode === "blink" && !isStill) timer = window.setInterval(blink, BLINK_MS);
    for (const each of MODES) byId(`v-mode-${each}`).checked = each === mode;
    showPictures();
    if (mode === "blink" && isStill) say("Motion is reduced: press b again to change pictures.");
  }

  function blink() {
    state.blinkOn = !state.blinkOn;
    blend();
  }

  function setAmount(percent) {
    if (!(state.mode in state.amounts)) return;
    state.amounts[state.mode] = Math.min(100, Math.max(0, percent));
    blend();
  }

  function loadAhead() {
    const place = state.order.indexOf(state.index);
    ahead = [place + 1, place - 1].flatMap((each) => {
      const section = data.sections[state.order[each]];
      if (!section || !section.layers) return [];
      const layers = layersOf(section);
      return [state.a, state.b].filter((key) => layers.has(key))
        .map((key) => loading(addressOf(layers.get(key).picture)));
    });
  }

  function moved(pane, mm) {
    const other = { [plane.figure.id]: second, [second.figure.id]: plane }[pane.figure.id];
    if (other && other.grid) other.setCursor(pane.cursor);
    const where = pane === prepared ? "as prepared" : "on the plane";
    byId("v-readout").textContent = mm ? `${where}: x ${mm[0].toFixed(2)} mm, y ${mm[1].toFixed(2)} mm` : "";
  }

  // ---- numbers ---------------------------------------------------------------------------------

  function cell(kind, text, className) {
    const element = document.createElement(kind);
    element.textContent = text;
    if (className) element.className = className;
    return element;
  }

  function row(cells) {
    const element = document.createElement("tr");
    element.append(...cells);
    return element;
  }

  // of many methods those that are shown, beside linear; the page's tables have all
  function toldMethods() {
    if (data.methods.length <= 4) return data.methods;
    const told = new Set(["linear", favourite(), methodOf(state.a), methodOf(state.b)]);
    return data.methods.filter((method) => told.has(method));
  }

  function showFacts() {
    const section = current();
    byId("v-message").textContent = section.message;
    byId("v-facts").replaceChildren(...section.facts.map((fact) => cell("li", fact)));
    const table = byId("v-measured");
    table.hidden = !section.measured.length;
    byId("v-unmeasured").hidden = Boolean(section.measured.length);
    const told = toldMethods();
    const head = row([
      cell("th", "measured"), ...told.map((method) => cell("th", method, "n")), cell("th", "unit"),
    ]);
    const lines = section.measured.map((line) => {
      const name = cell("th", line.metric + (line.class ? `, ${line.class}` : ""));
      name.scope = "row";
      name.title = line.meaning;
      const cells = told.map((method) => line.cells[data.methods.indexOf(method)]);
      return row([name, ...cells.map((each) => cell("td", each.text, `n ${each.grade}`)),
        cell("td", line.unit)]);
    });
    table.replaceChildren(head, ...lines);
  }

  // ---- decisions -------------------------------------------------------------------------------

  function change(part) {
    corrections.change(current().name, part);
    hasUnsaved = corrections.size > 0;
    showDecision();
    markStrip();
  }

  function showDecision() {
    const decided = decision();
    for (const verdict of VERDICTS) {
      byId(`v-${verdict}`).setAttribute("aria-pressed", String(decided.verdict === verdict));
    }
    const force = current().in_force || [];
    byId("v-force").textContent = force.length ? `Already in force: ${force.join("; ")}` : "";
    byId("v-flip").setAttribute("aria-pressed", String(decided.mirror));
    const turnField = byId("v-turn"); // -4 stays as it was written
    if (turnField.value === "" || turnOf(Number(turnField.value)) !== decided.turn) {
      turnField.value = String(decided.turn);
    }
    for (const id of ["v-flip", "v-turn", "v-turn-left", "v-turn-right"]) {
      byId(id).disabled = data.prealigned || !(current().layers && current().layers.prepared);
    }
    if (document.activeElement !== byId("v-note")) byId("v-note").value = decided.note;
    prepared.mirror = decided.mirror;
    prepared.turn = decided.turn;
    const turned = (decided.mirror ? ", mirrored" : "") + (decided.turn ? `, turned ${decided.turn}° counter-clockwise` : "");
    prepared.caption.textContent = `as prepared${turned}`;
    showLandmarks(decided.landmarks || []);
    byId("v-save").textContent = `Save corrections (${corrections.size})`;
    byId("v-save").disabled = !corrections.size;
    byId("v-clear").disabled = !corrections.size;
    byId("v-kept").textContent = corrections.isKept ? ""
      : "This browser keeps nothing for this page: save before you close it.";
  }

  function showLandmarks(landmarks) {
    const place = (kind) => [
      ...landmarks.map((pair) => ({ name: pair.name, mm: [pair[`x_${kind}_mm`], pair[`y_${kind}_mm`]] })),
      ...(state.pending[kind] ? [{ name: "?", mm: state.pending[kind], isPending: true }] : []),
    ];
    plane.marks = place("plane");
    second.marks = plane.marks;
    prepared.marks = place("prepared");
    panes.forEach((pane) => pane.draw());
    byId("v-landmark").setAttribute("aria-pressed", String(state.isLandmarking));
    root.classList.toggle("v-landmarking", state.isLandmarking);
    byId("v-landmarks").replaceChildren(...landmarks.map((pair, index) => {
      const item = cell("li", `${pair.name}: section ${pair.x_prepared_mm.toFixed(1)},` +
        ` ${pair.y_prepared_mm.toFixed(1)} mm; plane ${pair.x_plane_mm.toFixed(1)}, ${pair.y_plane_mm.toFixed(1)} mm `);
      const remove = cell("button", "Remove");
      remove.type = "button";
      remove.setAttribute("aria-label", `Remove landmark ${pair.name}`);
      remove.addEventListener("click", () => removeLandmark(index));
      item.append(remove);
      return item;
    }));
  }

  function setPoint(pane, mm) {
    if (!state.isLandmarking) return;
    const rounded = mm.map((value) => Number(value.toFixed(4)));
    state.pending[pane === prepared ? "prepared" : "plane"] = rounded;
    const { prepared: here, plane: there } = state.pending;
    if (here && there) {
      const landmarks = decision().landmarks || [];
      const used = landmarks.map((pair) => Number(pair.name) || 0);
      const name = String(Math.max(0, ...used) + 1);
      state.pending = {};
      change({ landmarks: [...landmarks, {
        name, x_prepared_mm: here[0], y_prepared_mm: here[1], x_plane_mm: there[0], y_plane_mm: there[1],
      }] });
      say(`Landmark ${name} is set.`);
    } else {
      showDecision();
      say(here ? "Now the same place on the MRI plane." : "Now the same place on the section as prepared.");
    }
  }

  function removeLandmark(index) {
    if (state.pending.prepared || state.pending.plane) {
      state.pending = {};
      showDecision();
      return;
    }
    const landmarks = (decision().landmarks || []).filter((_, each) => each !== index);
    change({ landmarks: landmarks.length ? landmarks : null });
  }

  function setLandmarking(isOn) {
    state.isLandmarking = isOn;
    state.pending = {};
    if (isOn) {
      byId("v-with-prepared").checked = true;
      if (state.mode === "blink") setMode("opacity");
      showPictures();
      say("Click the same place on the section as prepared and on the plane.");
    }
    showDecision();
  }

  function judge(verdict) {
    const isOff = decision().verdict === verdict;
    change({ verdict: isOff ? null : verdict });
    say(isOff ? `${current().name}: no verdict` : `${current().name}: ${SAID[verdict]}`);
  }

  // what is mirrored after it was turned is turned the other way
  const flip = () => change({ mirror: !decision().mirror, turn: turnOf(-decision().turn) });
  const turnBy = (degrees) => change({ turn: turnOf(decision().turn + degrees) });

  function save() {
    if (!corrections.size) return;
    const text = JSON.stringify(corrections.json(shownMethod()), null, 1);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "corrections.json";
    link.click();
    window.setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    hasUnsaved = false;
    say(`Saved ${corrections.size} sections as corrections.json. Next, with the file in the folder` +
      ` where snakemake runs: ${data.correct_command}`);
  }

  function load(file) {
    file.text().then((text) => {
      say(`${file.name}: ${corrections.read(text)}`);
    }).catch((error) => {
      say(`${file.name} was not read: ${error.message}`);
    }).finally(() => {
      showDecision();
      markStrip();
    });
  }

  // ---- the strip -------------------------------------------------------------------------------

  function valueOf(section) {
    const value = section.value[shownMethod()];
    return value === undefined ? null : value;
  }

  const scale = () => data.strip.scales[shownMethod()] || [0, 1];

  function colourOf(share) {
    const at = Math.min(1, Math.max(0, share)) * (HEAT.length - 1);
    const below = Math.min(HEAT.length - 2, Math.floor(at));
    return HEAT[below].map((part, i) => Math.round(part + (at - below) * (HEAT[below + 1][i] - part)));
  }

  function markStrip() {
    const buttons = byId("v-strip").children;
    if (data.strip) {
      const [low, high] = scale().map((value) => value.toPrecision(3));
      byId("v-legend-words").textContent = `${data.strip.name} by ${shownMethod()}: pale up to the` +
        ` median of ${low} ${data.strip.unit}, dark from ${high} ${data.strip.unit}`;
    }
    state.order.forEach((index, place) => {
      const section = data.sections[index];
      const button = buttons[place];
      const { verdict } = corrections.of(section.name);
      const value = valueOf(section);
      button.textContent = verdict ? SIGNS[verdict] : "";
      const [low, high] = value === null ? [0, 1] : scale();
      const share = value === null ? null : (value - low) / (high - low);
      button.style.background = !section.layers ? "" : share === null ? "#c9d1db" : `rgb(${colourOf(share)})`;
      button.style.color = share !== null && share > 0.55 ? "#fff" : "#111";
      button.classList.toggle("v-failed", !section.layers);
      const words = [section.name];
      if (section.position_mm !== null) words.push(`at ${Number(section.position_mm.toFixed(3))} mm`);
      if (value !== null) words.push(`${data.strip.name} ${value.toPrecision(3)} ${data.strip.unit}`);
      if (!section.layers) words.push("was left out");
      if (verdict) words.push(SAID[verdict]);
      button.title = words.join(", ");
      button.setAttribute("aria-label", button.title);
      if (index === state.index) {
        button.setAttribute("aria-current", "true");
      } else {
        button.removeAttribute("aria-current");
      }
      button.tabIndex = index === state.index ? 0 : -1;
    });
  }

  function buildStrip() {
    byId("v-strip").replaceChildren(...state.order.map((index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.addEventListener("click", () => open(index));
      return button;
    }));
    byId("v-legend").hidden = !data.strip;
    byId("v-legend-bar").style.background =
      `linear-gradient(to right, ${HEAT.map((colour) => `rgb(${colour})`).join(", ")})`;
    byId("v-worst").parentElement.hidden = !data.strip;
  }

  function sortOrder() {
    const all = data.sections.map((_, index) => index);
    const value = (index) => valueOf(data.sections[index]) ?? -1;
    state.order = byId("v-worst").checked ? all.sort((a, b) => value(b) - value(a)) : all;
    buildStrip();
    showSection();
  }

  function open(index) {
    const wasInStrip = byId("v-strip").contains(document.activeElement);
    if (document.activeElement === byId("v-note")) byId("v-note").blur();
    state.index = index;
    showSection();
    if (wasInStrip) byId("v-strip").children[state.order.indexOf(index)].focus();
  }

  function step(by) {
    const place = state.order.indexOf(state.index) + by;
    if (place >= 0 && place < state.order.length) open(state.order[place]);
  }

  // ---- all sections, one below the other -------------------------------------------------------

  const shownHere = new Map(); // <img> -> the canvas that stands for it on the screen

  function setSeen(image, isSeen) {
    if (isSeen && !shownHere.has(image)) {
      const canvas = imageOf(image.dataset.picture, image.alt);
      canvas.style.aspectRatio = `${image.getAttribute("width")} / ${image.getAttribute("height")}`;
      shownHere.set(image, canvas);
      image.hidden = true;
      image.after(canvas);
    } else if (!isSeen && shownHere.has(image)) {
      erase(shownHere.get(image));
      shownHere.get(image).remove();
      shownHere.delete(image);
      image.hidden = false;
    }
  }

  // a brain has thousands of pictures: only those near the window are held
  function watchAll() {
    const watch = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        for (const image of entry.target.querySelectorAll("img")) setSeen(image, entry.isIntersecting);
      }
    }, { rootMargin: "800px" });
    for (const section of document.querySelectorAll("#all-sections .section")) watch.observe(section);
    window.addEventListener("beforeprint", () => {
      watch.disconnect();
      byId("all-sections").open = true;
      for (const image of printed) {
        setSeen(image, false);
        image.loading = "eager";
        image.src = image.dataset.src;
      }
    });
  }

  // ---- keys and controls -----------------------------------------------------------------------

  function toggleOverlay(overlay) {
    if (!overlayPicture(current(), overlay)) return;
    if (!state.overlays.delete(overlay)) state.overlays.add(overlay);
    showPictures();
  }

  function zoom(factor) {
    for (const pane of [plane, prepared]) if (pane.grid) pane.zoomMiddle(factor);
  }

  function fit() {
    for (const pane of [plane, prepared]) Object.assign(pane.view, { zoom: 1, x: 0, y: 0 });
    handlers.view();
  }

  const KEYS = [
    [["j", "ArrowRight"], "j or →", "next section", () => step(1)],
    [["k", "ArrowLeft"], "k or ←", "previous section", () => step(-1)],
    [["a"], "a", "accept: looked at and found good", () => judge("accept")],
    [["r"], "r", "reject: keep it out of the volume", () => judge("reject")],
    [["x"], "x", "exclude: leave it out of everything", () => judge("exclude")],
    [["n"], "n", "write a note (Escape leaves it)", () => byId("v-note").focus()],
    [["l"], "l", "set landmarks, or stop", () => setLandmarking(!state.isLandmarking)],
    [["Backspace", "Delete"], "Backspace", "remove the last landmark, while setting them",
      () => state.isLandmarking && removeLandmark((decision().landmarks || []).length - 1)],
    [["f"], "f", "flip the section as prepared left to right", () => !byId("v-flip").disabled && flip()],
    [["t"], "t", "turn it by 90° counter-clockwise", () => !byId("v-turn").disabled && turnBy(90)],
    [["T"], "T", "turn it by 90° clockwise", () => !byId("v-turn").disabled && turnBy(-90)],
    [["b"], "b", "blink between the two layers", () => (state.mode === "blink" && isStill ? blink() : setMode("blink"))],
    [["1", "2", "3", "4", "5"], "1 to 5", "opacity, blink, slider, checkerboard, side by side",
      (key) => setMode(MODES[Number(key) - 1])],
    [["[", "]"], "[ and ]", "less and more of the second layer; move the divider",
      (key) => setAmount(amount() + (key === "]" ? 10 : -10))],
    [["o"], "o", "outlines of the MRI", () => toggleOverlay("edges")],
    [["g"], "g", "deformed grid", () => toggleOverlay("grid")],
    [["e"], "e", "map of the expected error", () => toggleOverlay("error")],
    [["+", "="], "+", "zoom in", () => zoom(1.4)],
    [["-"], "−", "zoom out", () => zoom(1 / 1.4)],
    [["0"], "0", "the whole section", fit],
    [["s"], "s", "save corrections.json", save],
    [["?"], "?", "this help", () => byId("v-help").showModal()],
  ];

  function onKey(event) {
    const target = event.target;
    const isText = target.matches("textarea, select, input:not([type=radio]):not([type=checkbox]):not([type=range])");
    if (event.key === "Escape" && target === byId("v-note")) target.blur();
    if (isText || event.ctrlKey || event.metaKey || event.altKey || byId("v-help").open) return;
    if (target.matches("input") && event.key.startsWith("Arrow")) return;
    if (!byId("v-keys").checked && event.key !== "?") return;
    const found = KEYS.find(([keys]) => keys.includes(event.key));
    if (!found) return;
    event.preventDefault();
    found[3](event.key);
  }

  function listen() {
    const onClick = (id, action) => byId(id).addEventListener("click", action);
    onClick("v-previous", () => step(-1));
    onClick("v-next", () => step(1));
    for (const verdict of VERDICTS) onClick(`v-${verdict}`, () => judge(verdict));
    for (const mode of MODES) byId(`v-mode-${mode}`).addEventListener("change", () => setMode(mode));
    for (const overlay of OVERLAYS) onClick(`v-${overlay}`, () => toggleOverlay(overlay));
    for (const side of ["a", "b"]) {
      byId(`v-${side}`).addEventListener("change", (event) => {
        state[side] = event.target.value;
        showPictures();
        showFacts();
        markStrip();
        loadAhead();
      });
    }
    byId("v-section").addEventListener("change", (event) => open(Number(event.target.value)));
    byId("v-amount").addEventListener("input", (event) => setAmount(Number(event.target.value)));
    byId("v-with-prepared").addEventListener("change", showPictures);
    byId("v-worst").addEventListener("change", sortOrder);
    onClick("v-in", () => zoom(1.4));
    onClick("v-out", () => zoom(1 / 1.4));
    onClick("v-fit", fit);
    onClick("v-flip", flip);
    onClick("v-turn-left", () => turnBy(90));
    onClick("v-turn-right", () => turnBy(-90));
    byId("v-turn").addEventListener("change", (event) => change({ turn: turnOf(Number(event.target.value) || 0) }));
    onClick("v-landmark", () => setLandmarking(!state.isLandmarking));
    byId("v-note").addEventListener("input", (event) => change({ note: event.target.value }));
    onClick("v-save", save);
    onClick("v-load", () => byId("v-file").click());
    byId("v-file").addEventListener("change", (event) => {
      if (event.target.files[0]) load(event.target.files[0]);
      event.target.value = "";
    });
    onClick("v-clear", () => {
      if (!window.confirm("Forget all that was decided on this page?")) return;
      corrections.clear();
      hasUnsaved = false;
      showDecision();
      markStrip();
    });
    onClick("v-help-open", () => byId("v-help").showModal());
    onClick("v-help-close", () => byId("v-help").close());
    document.addEventListener("keydown", onKey);
    for (const link of document.querySelectorAll("a[data-section]")) {
      link.addEventListener("click", (event) => {
        const index = data.sections.findIndex((section) => section.name === link.dataset.section);
        if (index < 0) return;
        event.preventDefault();
        open(index);
        root.scrollIntoView({ behavior: isStill ? "auto" : "smooth" });
      });
    }
    window.addEventListener("beforeunload", (event) => {
      if (hasUnsaved && !corrections.isKept) event.preventDefault();
    });
    new ResizeObserver(blend).observe(plane.frame);
    watchAll();
  }

  byId("v-key-table").replaceChildren(...KEYS.map(([, shown, meaning]) => {
    const name = document.createElement("th");
    name.scope = "row";
    name.append(cell("kbd", shown));
    return row([name, cell("td", meaning)]);
  }));
  options(byId("v-section"), data.sections.map((section, index) => [String(index), section.name]), "0");
  const view = handlers.view;
  handlers.view = () => { view(); if (plane.grid) blend(); };
  root.hidden = false;
  if (!data.sections.length) {
    root.hidden = true;
    return;
  }
  listen();
  buildStrip();
  byId(`v-mode-${state.mode}`).checked = true;
  showSection();
})();

// pictures that are in a folder beside the page may have stayed behind
document.addEventListener("error", (event) => {
  if (event.target instanceof HTMLImageElement) document.getElementById("lost-pictures").hidden = false;
}, true);
