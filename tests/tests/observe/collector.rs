//! A collector of OTLP traces that remembers every span it is sent: HTTP/1.1 with JSON bodies, enough of
//! both for one client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A span as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for the first of its trace.
    pub(crate) parent: String,
    pub(crate) name: String,
    /// `service.instance.id` of whoever sent it.
    pub(crate) node: String,
    pub(crate) attributes: BTreeMap<String, String>,
}

/// Takes traces on a port of its own.
pub(crate) struct Collector {
    /// What `--otlp-endpoint` is told.
    pub(crate) endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    pub(crate) async fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let taken = spans.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let taken = taken.clone();
                tokio::spawn(async move {
                    let _ = serve(stream, &taken).await;
                });
            }
        });
        Collector { endpoint, spans }
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans.lock().expect("nobody panics here").clone()
    }
}

async fn serve(stream: TcpStream, taken: &Mutex<Vec<Span>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.trim().to_ascii_lowercase());
        }
        assert_eq!(head[0], "post /v1/traces http/1.1");
        let header = |name: &str| head.iter().find_map(|line| line.strip_prefix(name));
        assert_eq!(header("content-type: "), Some("application/json"));
        let length = header("content-length: ")
            .expect("a length")
            .parse()
            .expect("a number");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let request: Value = serde_json::from_slice(&body).expect("a request in JSON");
        taken
            .lock()
            .expect("nobody panics here")
            .extend(spans_of(&request));
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(answer.as_bytes()).await?;
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn attributes(value: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list(value)
        .map(|pair| (text(&pair["key"]), text(&pair["value"]["stringValue"])))
        .collect()
}

fn spans_of(request: &Value) -> Vec<Span> {
    let mut found = Vec::new();
    for resource in list(&request["resourceSpans"]) {
        let about = attributes(&resource["resource"]["attributes"]);
        assert_eq!(about["service.name"], "dunlin");
        for span in list(&resource["scopeSpans"]).flat_map(|scope| list(&scope["spans"])) {
            let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
            assert_eq!((text("traceId").len(), text("spanId").len()), (32, 16), "{span}");
            found.push(Span {
                trace: text("traceId"),
                id: text("spanId"),
                parent: text("parentSpanId"),
                name: text("name"),
                node: about["service.instance.id"].clone(),
                attributes: attributes(&span["attributes"]),
            });
        }
    }
    found
}
