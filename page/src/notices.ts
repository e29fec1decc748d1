/** What the page has to say about the microphone's work. Each notice has a topic, and goes when the state it tells of has ended. */

import { signal } from "@preact/signals";

export type Topic = "outcome" | "connection" | "delay" | "warning" | "server";

export interface Notice {
  topic: Topic;
  text: string;
  isBad: boolean;
}

/** Milliseconds that good news is shown. */
const BRIEF = 6000;

/** One of each topic at most. */
export const notices = signal<Notice[]>([]);

export function tell(topic: Topic, text: string, isBad = true): void {
  const known = notices.value.find((notice) => notice.topic === topic);
  if (known?.text === text) return;
  notices.value = [...notices.value.filter((notice) => notice !== known), { topic, text, isBad }];
}

/** Good news, which goes by itself. */
export function tellBriefly(topic: Topic, text: string): void {
  tell(topic, text, false);
  const told = notices.value.find((notice) => notice.topic === topic);
  setTimeout(() => (notices.value = notices.value.filter((notice) => notice !== told)), BRIEF);
}

/** That has ended. */
export function settle(...topics: Topic[]): void {
  if (notices.value.some(({ topic }) => topics.includes(topic))) {
    notices.value = notices.value.filter(({ topic }) => !topics.includes(topic));
  }
}
