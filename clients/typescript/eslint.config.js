import js from "@eslint/js";
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist/", "build/", "src/generated/"] },
  js.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  ...tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      // Numbers in a message need no ceremony; everything else that is no string still does.
      "@typescript-eslint/restrict-template-expressions": [
        "error",
        { allowNumber: true, allowBoolean: true },
      ],
      // Promises are rejected with what a caller's AbortSignal says, which may be anything.
      "@typescript-eslint/prefer-promise-reject-errors": "off",
      "@typescript-eslint/only-throw-error": "off",
      // `no-non-null-assertion` refuses `!`: what is known to be there is said with its type.
      "@typescript-eslint/non-nullable-type-assertion-style": "off",
      // node:test's `test` returns a promise that nobody has to wait for.
      "@typescript-eslint/no-floating-promises": [
        "error",
        {
          allowForKnownSafeCalls: [
            { from: "package", name: ["test", "describe", "suite"], package: "node:test" },
          ],
        },
      ],
      "no-restricted-imports": "off",
    },
  },
  {
    files: ["src/**/*.ts"],
    ignores: ["src/node/**"],
    rules: {
      "no-restricted-imports": ["error", { patterns: ["node:*", "**/node/*", "@grpc/*"] }],
    },
  },
  {
    files: ["**/*.js", "**/*.mjs"],
    ...tseslint.configs.disableTypeChecked,
    languageOptions: {
      ...tseslint.configs.disableTypeChecked.languageOptions,
      globals: Object.fromEntries(
        ["console", "process", "URL", "document", "fetch", "createImageBitmap", "performance"].map((name) => [
          name,
          "readonly",
        ]),
      ),
    },
  },
);
