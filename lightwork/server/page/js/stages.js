// The stages of works and calls, in the order in which they are of interest.

export const STAGES = ["failed", "running", "pending", "started", "succeeded", "stopped", "not_started"];

const NAMES = { not_started: "not started" };

export const stageName = (stage) => NAMES[stage] ?? stage;

export const isOver = (stage) => stage === "succeeded" || stage === "failed" || stage === "stopped";
