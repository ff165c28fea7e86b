// Express, on the port that is the argument.
"use strict";
const express = require("express");
const app = express();
app.use("/admin", (request, response) => response.type("text").send("admin\n" + request.originalUrl.split("?")[0]));
app.use((request, response) => response.type("text").send("other\n" + request.path));
const server = app.listen(Number(process.argv[2]), "127.0.0.1");
server.maxRequestsPerSocket = 0;
server.keepAliveTimeout = 60000;
