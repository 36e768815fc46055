// Addresses are relative, so that the page works behind a proxy that puts something before them.
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
