// The page at /schema: Swagger UI in the order of the document, with the key that the page at / was given.

const ui = SwaggerUIBundle({
  url: "/schema/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: -1, // the shapes stand at their operations; all of them in a list take seconds
  displayRequestDuration: true,
  validatorUrl: null,
  onComplete: () => {
    const key = sessionStorage.getItem("tiles-server-key");
    if (key) ui.preauthorizeApiKey("bearer", key);
    // A newcomer begins with the chat; whoever came by a link to an operation has it open.
    if (!location.hash) document.querySelector("#operations-tag-Chat[data-is-open=false]")?.click();
  },
});
