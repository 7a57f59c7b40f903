"""Somebody who takes events over HTTPS, and is not always well.

Arguments: files with its certificate and its key, a file for what it takes, and how often it is well: of so many requests
in a row one is answered 503. Writes the port that it listens on, and into the file a line for each event that it took;
ends when it is told to.
"""

import http.server
import json
import ssl
import sys
import threading

from shared import say

certificate, key, taken, well_times = sys.argv[1:5]
lock = threading.Lock()
asked = 0


class Webhook(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global asked
        body = self.rfile.read(int(self.headers["content-length"]))
        with lock:
            asked += 1
            is_well = asked % int(well_times) != 0
            if is_well and self.headers["authorization"] == "Bearer secret":
                for event in json.loads(body):
                    print(json.dumps(event), file=took, flush=True)
        self.send_response(200 if is_well else 503)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def listen():
    for line in sys.stdin:
        if line.strip() == "end":
            break
    server.shutdown()


took = open(taken, "w", encoding="utf-8")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=listen, daemon=True).start()
say("listening", server.server_port)
server.serve_forever()
say("ended", None)
