//! The page at `/docs` and its files.

use std::fs;

use crate::client::{Answer, Client, get};
use crate::server::{Server, settings};

const FILES: [(&str, &str); 3] = [
    ("swagger-ui.css", "text/css; charset=utf-8"),
    ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    ("favicon-32x32.png", "image/png"),
];

async fn serve() -> (Server, tempfile::TempDir) {
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join("secret"), "not for the page").unwrap();
    let folder = parent.path().join("dist");
    fs::create_dir(&folder).unwrap();
    for (name, _) in FILES {
        fs::write(folder.join(name), name.repeat(200)).unwrap();
    }
    fs::write(folder.join("index.html"), "<script src=https://elsewhere/>").unwrap();
    let mut settings = settings();
    settings.docs_folder = Some(folder);
    (Server::empty(settings).await, parent)
}

async fn ask(server: &Server, request: &str) -> Answer {
    let mut client = Client::connect(server.data).await;
    client.send(format!("{request}host: test\r\n\r\n").as_bytes()).await;
    let method = request.split(' ').next().unwrap();
    client.answer_to(method).await.unwrap()
}

#[tokio::test]
async fn the_page_names_nothing_but_files_that_are_served() {
    let (server, _folder) = serve().await;
    let page = get(server.data, "/docs").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("http"), "{policy}");
    let text = page.text();
    let named: Vec<_> = text.split('"').filter(|value| value.starts_with("docs/")).collect();
    assert_eq!(named.len(), 4, "{text}");
    for name in named {
        let file = get(server.data, &format!("/{name}")).await;
        assert_eq!(file.status, 200, "{name}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(file.header("cache-control"), Some("no-cache"));
    }
    assert!(!text.contains("//"), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn files_have_their_types_and_are_sent_again_only_when_they_changed() {
    let (server, folder) = serve().await;
    for (name, kind) in FILES {
        let path = format!("/docs/{name}");
        let file = get(server.data, &path).await;
        assert_eq!((file.text(), file.header("content-type")), (name.repeat(200), Some(kind)));
        let tag = file.header("etag").unwrap();
        let known = format!("GET {path} HTTP/1.1\r\nif-none-match: \"other\", {tag}\r\n");
        let again = ask(&server, &known).await;
        assert_eq!((again.status, again.header("etag"), again.body.len()), (304, Some(tag), 0));
        let head = ask(&server, &format!("HEAD {path} HTTP/1.1\r\n")).await;
        assert_eq!((head.status, head.header("content-length")), (200, file.header("content-length")));
        let packed = ask(&server, &format!("GET {path} HTTP/1.1\r\naccept-encoding: gzip\r\n")).await;
        assert_eq!(packed.header("content-encoding"), Some("gzip"));
        assert!(packed.body.len() < file.body.len() / 2);
        fs::write(folder.path().join("dist").join(name), "new").unwrap();
        assert_eq!(ask(&server, &known).await.text(), "new");
    }
    server.stop().await;
}

#[tokio::test]
async fn no_path_leads_to_another_file() {
    let (server, _folder) = serve().await;
    for path in [
        "/docs/index.html",
        "/docs/../secret",
        "/docs/..",
        "/docs/.",
        "/docs/..%2fsecret",
        "/docs/%2e%2e/secret",
        "/docs//secret",
        "/docs/swagger-ui.css/x",
        "/docs/..\\secret",
    ] {
        let answer = get(server.data, path).await;
        assert_eq!(answer.status, 404, "{path}");
    }
    let answer = get(server.data, "/docs/").await;
    assert_eq!((answer.status, answer.header("location")), (308, Some("../docs")));
    assert!(ask(&server, "POST /docs HTTP/1.1\r\ncontent-length: 0\r\n").await.error(405).contains("GET"));
    server.stop().await;
}

#[tokio::test]
async fn without_its_files_the_page_says_how_to_get_them() {
    let server = Server::empty(settings()).await;
    for path in ["/docs", "/docs/swagger-ui.css"] {
        assert!(get(server.data, path).await.error(404).contains("pip install 'inferd[docs]'"), "{path}");
    }
    server.stop().await;
}
