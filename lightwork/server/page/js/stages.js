// The stages of works and calls. Stages that need attention come first.

export const STAGES = ["failed", "running", "pending", "started", "succeeded", "stopped", "not_started"];

const NAMES = { not_started: "not started" };

export const stageName = (stage) => NAMES[stage] ?? stage;

export const isOver = (stage) => stage === "succeeded" || stage === "failed" || stage === "stopped";
