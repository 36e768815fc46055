// Loaded by page.html behind Swagger UI itself.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: -1,
  // It would send the description to another host.
  validatorUrl: null,
});
