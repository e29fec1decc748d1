/** A few short values that last as long as the tab. Browsers may forbid storage; then they last as long as the page. */

const values = new Map<string, string>();

export function remembered(name: string): string {
  try {
    return sessionStorage.getItem(name) ?? "";
  } catch {
    return values.get(name) ?? "";
  }
}

export function remember(name: string, value: string): void {
  values.set(name, value);
  try {
    sessionStorage.setItem(name, value);
  } catch {
    // forbidden or full: `values` has it
  }
}
