"use strict";
// What the user decides of sections: kept in memory and, where the browser lets us, in its storage;
// saved as corrections.json, which `sbr correct` reads.

const VERDICTS = ["accept", "reject", "exclude"];

function emptyDecision() {
  return { verdict: null, mirror: false, turn: 0, landmarks: null, note: "" };
}

function isEmptyDecision(decision) {
  return !decision.verdict && !decision.mirror && !decision.turn && decision.landmarks === null &&
    !decision.note;
}

function turnOf(degrees) {
  return ((degrees % 360) + 360) % 360;
}

class Corrections {
  constructor(brain, key, sections) {
    this.brain = brain;
    this.key = key;
    this.sections = new Map(sections.map((section) => [section.name, section]));
    this.decisions = new Map();
    this.isKept = true;
    this.restore();
  }

  of(name) {
    return this.decisions.get(name) || emptyDecision();
  }

  // change: parts of a decision, laid over what was decided before
  change(name, change) {
    const decision = { ...this.of(name), ...change };
    if (isEmptyDecision(decision)) {
      this.decisions.delete(name);
    } else {
      this.decisions.set(name, decision);
    }
    this.keep();
  }

  clear() {
    this.decisions.clear();
    this.keep();
  }

  get size() {
    return this.decisions.size;
  }

  keep() {
    try {
      window.localStorage.setItem(this.key, JSON.stringify([...this.decisions]));
      this.isKept = true;
    } catch (error) { // none of this page's own, or it is full
      this.isKept = false;
    }
  }

  restore() {
    let kept = null;
    try {
      kept = JSON.parse(window.localStorage.getItem(this.key) || "[]");
    } catch (error) {
      this.isKept = false;
    }
    for (const [name, decision] of Array.isArray(kept) ? kept : []) {
      if (this.sections.has(name)) {
        this.decisions.set(name, { ...emptyDecision(), ...decision });
      }
    }
  }

  // as the file has them: mirrored left to right or upside down, then turned counter-clockwise
  json(method) {
    const sections = {};
    for (const [name, decision] of this.decisions) {
      const section = this.sections.get(name);
      const said = {};
      if (decision.verdict) said.verdict = decision.verdict;
      if (decision.mirror) said.flip = decision.turn === 180 ? "ud" : "lr";
      const turn = said.flip === "ud" ? 0 : decision.turn;
      if (turn) said.turn_deg = turn;
      if (decision.landmarks !== null) said.landmarks = decision.landmarks;
      if (decision.note) said.note = decision.note;
      said.prepared_sha256 = section.prepared_sha256;
      said.plane_sha256 = section.plane_sha256;
      sections[name] = said;
    }
    return {
      format: "sbr_core corrections",
      version: 1,
      brain: this.brain,
      method,
      saved: new Date().toISOString().replace(/\.\d+Z$/, "Z"),
      sections,
    };
  }

  // take what a file says; returns what to tell the user, throws an Error where it is none of ours
  read(text) {
    let file = null;
    try {
      file = JSON.parse(text);
    } catch (error) {
      throw new Error("it is not JSON");
    }
    if (!file || file.format !== "sbr_core corrections" || file.version !== 1) {
      throw new Error("it is no corrections.json of a report");
    }
    if (file.brain !== this.brain) {
      throw new Error(`it is of brain ${file.brain}, and this page is of ${this.brain}`);
    }
    const unknown = [];
    const changed = [];
    const turned = [];
    let count = 0;
    for (const [name, said] of Object.entries(file.sections || {})) {
      const section = this.sections.get(name);
      if (!section) {
        unknown.push(name);
        continue;
      }
      const decision = decisionOf(said);
      const isSame = said.prepared_sha256 === section.prepared_sha256 &&
        said.plane_sha256 === section.plane_sha256;
      if (!isSame && decision.landmarks && decision.landmarks.length) {
        decision.landmarks = null; // set on another picture
        changed.push(name);
      }
      if (said.prepared_sha256 !== section.prepared_sha256 && (decision.mirror || decision.turn)) {
        decision.mirror = false; // it may be in force already, and would be undone
        decision.turn = 0;
        turned.push(name);
      }
      if (!isEmptyDecision(decision)) {
        this.decisions.set(name, decision);
        count += 1;
      }
    }
    this.keep();
    const said = [`${count} sections read`];
    if (changed.length) said.push(`landmarks left out, their picture has changed: ${changed.join(", ")}`);
    if (turned.length) {
      said.push(`flips and turns left out, asked for on an earlier picture: ${turned.join(", ")}`);
    }
    if (unknown.length) said.push(`not on this page: ${unknown.join(", ")}`);
    return said.join("; ");
  }
}

function decisionOf(said) {
  const decision = emptyDecision();
  if (VERDICTS.includes(said.verdict)) decision.verdict = said.verdict;
  decision.mirror = said.flip === "lr" || said.flip === "ud";
  decision.turn = turnOf((Number(said.turn_deg) || 0) + (said.flip === "ud" ? 180 : 0));
  if (typeof said.note === "string") decision.note = said.note;
  if (Array.isArray(said.landmarks)) {
    decision.landmarks = said.landmarks.map((pair, index) => ({
      name: String(pair.name || index + 1),
      x_prepared_mm: Number(pair.x_prepared_mm),
      y_prepared_mm: Number(pair.y_prepared_mm),
      x_plane_mm: Number(pair.x_plane_mm),
      y_plane_mm: Number(pair.y_plane_mm),
    })).filter((pair) => Object.values(pair).slice(1).every(Number.isFinite));
  }
  return decision;
}
