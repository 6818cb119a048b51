"""The HTTP side of the stand-in."""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{model_name="{model}"}} 0.0
# TYPE vllm:request_success_total counter
vllm:request_success_total{{model_name="{model}"}} {requests}.0
"""


class Handler(BaseHTTPRequestHandler):
    """Answers for the server's `models`, a list of names."""

    protocol_version = "HTTP/1.1"
    models = []
    requests = 0

    def answer(self, status, body, kind="application/json"):
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def refuse(self, status, message):
        self.answer(status, {"object": "error", "message": message, "type": "Error", "param": None, "code": status})

    def do_GET(self):
        if self.path in ("/health", "/ping"):
            self.answer(200, "")
        elif self.path == "/v1/models":
            data = [{"id": name, "object": "model", "owned_by": "vllm", "root": self.models[0]} for name in self.models]
            self.answer(200, {"object": "list", "data": data})
        elif self.path == "/metrics":
            self.answer(200, METRICS.format(model=self.models[0], requests=Handler.requests), "text/plain")
        else:
            self.refuse(404, "Not Found")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            request = json.loads(body)
        except ValueError:
            return self.refuse(400, "the body is no JSON")
        if self.path not in ("/v1/completions", "/v1/chat/completions"):
            return self.refuse(404, "Not Found")
        if request.get("model") not in self.models:
            return self.refuse(404, f"The model `{request.get('model')}` does not exist.")
        self.complete(request)

    def complete(self, request):
        Handler.requests += 1
        tokens = request.get("max_tokens") or 16
        text = " token" * tokens
        chat = self.path == "/v1/chat/completions"
        part = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        self.answer(200, {
            "id": f"cmpl-{Handler.requests}",
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": request["model"],
            "choices": [{"index": 0, **part, "logprobs": None, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 4, "completion_tokens": tokens, "total_tokens": 4 + tokens},
        })

    def log_message(self, form, *values):
        print(f'INFO:     {self.client_address[0]} - {form % values}', flush=True)


def serve(args, log):
    """Answers until the process ends."""
    Handler.models = args.served_model_name
    with ThreadingHTTPServer((args.host, args.port), Handler) as server:
        log(f"Uvicorn running on http://{args.host}:{args.port} (Press CTRL+C to quit)")
        server.serve_forever()
