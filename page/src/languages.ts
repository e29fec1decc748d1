/** Languages as people call them. */

const names = new Intl.DisplayNames(["en"], { type: "language" });

/** `code`: as in BCP 47; others are left as they are. */
export function languageName(code: string): string {
  try {
    return names.of(code) ?? code;
  } catch {
    return code;
  }
}
