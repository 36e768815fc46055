//! Turns a path into an endpoint, and says which methods the endpoint takes.
//!
//! Reads the path of a request, hands back an [`Endpoint`] that borrows from it. Knows nothing of which models exist:
//! an unknown path is an error here, an unknown model later.

use std::borrow::Cow;

use http::Method;

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Endpoint<'a> {
    /// `/v2`: the description of the server.
    Server,
    /// `/v2/health/live`.
    Live,
    /// `/v2/health/ready`.
    Ready,
    /// `/v2/models/stats`: counters of every model.
    AllStatistics,
    /// `/v2/repository/index`.
    RepositoryIndex,
    /// `/openapi.json`: the endpoints, for programs.
    OpenApi,
    /// `/docs`: the same, for people.
    Docs(DocsPath<'a>),
    /// `/v1/models`: names.
    V1Models,
    /// Something under one model.
    Model(ModelPath<'a>, ModelAction),
    /// `/v2/systemsharedmemory[/region/{name}]/status`: what is registered.
    Regions(Option<Cow<'a, str>>),
    /// `/v2/systemsharedmemory/region/{name}/register`.
    Register(Cow<'a, str>),
    /// `/v2/systemsharedmemory[/region/{name}]/unregister`.
    Unregister(Option<Cow<'a, str>>),
    /// The same for CUDA, which has no regions here.
    CudaRegions,
    /// The same for CUDA: clients unregister everything before they begin.
    CudaUnregister,
    /// In the protocol or in Triton's extensions, but not in this server: the feature, and what to do instead.
    Unbuilt(&'static str),
}

/// A path under `/docs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DocsPath<'a> {
    /// `/docs`.
    Page,
    /// `/docs/`.
    Folder,
    /// `/docs/{name}`.
    File(&'a str),
}

/// What a path asks of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModelAction {
    /// The metadata.
    Metadata,
    /// Whether it is ready.
    Ready,
    /// The configuration.
    Config,
    /// Its counters.
    Statistics,
    /// Run it.
    Infer,
    /// Run it on plain values: `/models/{name}`.
    Plain,
    /// Run it as KServe's first protocol has it: `/v1/models/{name}:predict`.
    Predict,
    /// Its state in that protocol: `/v1/models/{name}`.
    V1Status,
    /// Run it, by the generate extension: one response.
    Generate,
    /// The same: every response as an event.
    GenerateStream,
}

impl ModelAction {
    /// Whether it runs the model.
    pub(crate) fn is_inference(self) -> bool {
        matches!(
            self,
            ModelAction::Infer
                | ModelAction::Plain
                | ModelAction::Predict
                | ModelAction::Generate
                | ModelAction::GenerateStream
        )
    }
}

/// A model and, where the path names one, its version; percent-decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelPath<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) version: Option<Cow<'a, str>>,
}

const GET: &[Method] = &[Method::GET, Method::HEAD];
const POST: &[Method] = &[Method::POST];

impl<'a> Endpoint<'a> {
    /// The endpoint of `path`; `None` where there is none.
    pub(crate) fn of(path: &'a str) -> Option<Endpoint<'a>> {
        let path = path.strip_prefix('/')?;
        let mut segments = path.strip_suffix('/').unwrap_or(path).split('/');
        match segments.next() {
            Some("v2") => {}
            Some("models") => return plain(segments),
            Some("v1") => return first_version(segments),
            Some("docs") => {
                let page = segments.next().map_or(DocsPath::Page, DocsPath::File);
                let page = if path == "docs/" { DocsPath::Folder } else { page };
                return segments.next().is_none().then_some(Endpoint::Docs(page));
            }
            Some("openapi.json") => return segments.next().is_none().then_some(Endpoint::OpenApi),
            _ => return None,
        }
        let endpoint = match (segments.next(), segments.next()) {
            (None, _) => Endpoint::Server,
            (Some("models"), Some(name)) => return model(name, segments),
            (Some("health"), Some("live")) => Endpoint::Live,
            (Some("health"), Some("ready")) => Endpoint::Ready,
            (Some("repository"), Some("index")) => Endpoint::RepositoryIndex,
            (Some("repository"), Some("models")) => {
                let (_name, action) = (segments.next()?, segments.next()?);
                let feature = match action {
                    "load" => "loading a model by request; models are named when 'inferd serve' starts",
                    "unload" => "unloading a model by request; models are named when 'inferd serve' starts",
                    _ => return None,
                };
                Endpoint::Unbuilt(feature)
            }
            (Some("trace"), Some("setting")) => Endpoint::Unbuilt(TRACE),
            (Some("logging"), None) => Endpoint::Unbuilt("changing log settings by request"),
            (Some(kind @ ("systemsharedmemory" | "cudasharedmemory")), Some(next)) => {
                return memory(kind == "cudasharedmemory", next, segments);
            }
            _ => return None,
        };
        segments.next().is_none().then_some(endpoint)
    }

    /// The methods that the endpoint takes; any where it is not built.
    pub(crate) fn methods(&self) -> &'static [Method] {
        match self {
            Endpoint::Model(_, action) if action.is_inference() => POST,
            Endpoint::RepositoryIndex
            | Endpoint::Register(_)
            | Endpoint::Unregister(_)
            | Endpoint::CudaUnregister => POST,
            Endpoint::Unbuilt(_) => &[],
            _ => GET,
        }
    }

    /// Whether the endpoint takes `method`.
    pub(crate) fn takes(&self, method: &Method) -> bool {
        matches!(self, Endpoint::Unbuilt(_)) || self.methods().contains(method)
    }
}

/// Why there is no CUDA shared memory, and what to do instead.
pub(crate) const CUDA_SHARED_MEMORY: &str = "CUDA shared memory, since workers take tensors from the host's memory; send tensors in the request, or use system \
     shared memory";

const TRACE: &str = "changing trace settings by request; set otlp_endpoint instead";

/// `[region/{name}/]{action}`.
fn memory<'a>(cuda: bool, next: &'a str, mut segments: std::str::Split<'a, char>) -> Option<Endpoint<'a>> {
    let (name, action) = match next {
        "region" => (Some(percent_decoded(segments.next()?)?), segments.next()?),
        action => (None, action),
    };
    if segments.next().is_some() || name.as_ref().is_some_and(|name| name.is_empty()) {
        return None;
    }
    match (action, name) {
        ("status", _) if cuda => Some(Endpoint::CudaRegions),
        ("unregister", _) if cuda => Some(Endpoint::CudaUnregister),
        ("register", Some(_)) if cuda => Some(Endpoint::Unbuilt(CUDA_SHARED_MEMORY)),
        ("status", name) => Some(Endpoint::Regions(name)),
        ("unregister", name) => Some(Endpoint::Unregister(name)),
        ("register", Some(name)) => Some(Endpoint::Register(name)),
        _ => None,
    }
}

fn model<'a>(name: &'a str, mut segments: std::str::Split<'a, char>) -> Option<Endpoint<'a>> {
    let mut next = segments.next();
    // A model may be called `stats` all the same: only the bare path means the counters of all, as in Triton.
    if name == "stats" && next.is_none() {
        return Some(Endpoint::AllStatistics);
    }
    let name = percent_decoded(name)?;
    let mut version = None;
    if next == Some("versions") {
        version = Some(percent_decoded(segments.next()?)?);
        next = segments.next();
    }
    let action = match next {
        None => ModelAction::Metadata,
        Some("ready") => ModelAction::Ready,
        Some("config") => ModelAction::Config,
        Some("stats") => ModelAction::Statistics,
        Some("infer") => ModelAction::Infer,
        Some("generate") => ModelAction::Generate,
        Some("generate_stream") => ModelAction::GenerateStream,
        Some("trace") => {
            return (segments.next() == Some("setting") && segments.next().is_none())
                .then_some(Endpoint::Unbuilt(TRACE));
        }
        Some(_) => return None,
    };
    if segments.next().is_some() || name.is_empty() {
        return None;
    }
    Some(Endpoint::Model(ModelPath { name, version }, action))
}

/// `{name}[/versions/{version}]` behind `/models`.
fn plain<'a>(mut segments: std::str::Split<'a, char>) -> Option<Endpoint<'a>> {
    let name = percent_decoded(segments.next()?)?;
    let version = match segments.next() {
        None => None,
        Some("versions") => Some(percent_decoded(segments.next()?)?),
        Some(_) => return None,
    };
    (segments.next().is_none() && !name.is_empty())
        .then_some(Endpoint::Model(ModelPath { name, version }, ModelAction::Plain))
}

/// `models[/{name}[:predict]]` behind `/v1`.
fn first_version<'a>(mut segments: std::str::Split<'a, char>) -> Option<Endpoint<'a>> {
    if segments.next() != Some("models") {
        return None;
    }
    let Some(last) = segments.next() else { return Some(Endpoint::V1Models) };
    let (name, action) = match last.strip_suffix(":predict") {
        Some(name) => (name, ModelAction::Predict),
        None => (last, ModelAction::V1Status),
    };
    let name = percent_decoded(name)?;
    (segments.next().is_none() && !name.is_empty())
        .then_some(Endpoint::Model(ModelPath { name, version: None }, action))
}

/// `segment` with every `%xx` replaced; `None` where one is cut or the result is not UTF-8.
fn percent_decoded(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_first_chunk::<2>()?;
            let digit = |byte: u8| char::from(byte).to_digit(16);
            bytes.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on<'a>(name: &'a str, version: Option<&'a str>, action: ModelAction) -> Option<Endpoint<'a>> {
        Some(Endpoint::Model(ModelPath { name: name.into(), version: version.map(Into::into) }, action))
    }

    #[test]
    fn every_path_of_the_protocol_has_its_endpoint() {
        assert_eq!(Endpoint::of("/v2"), Some(Endpoint::Server));
        assert_eq!(Endpoint::of("/v2/"), Some(Endpoint::Server));
        assert_eq!(Endpoint::of("/v2/health/live"), Some(Endpoint::Live));
        assert_eq!(Endpoint::of("/v2/health/ready"), Some(Endpoint::Ready));
        assert_eq!(Endpoint::of("/v2/models/stats"), Some(Endpoint::AllStatistics));
        assert_eq!(Endpoint::of("/v2/models/stats/stats"), on("stats", None, ModelAction::Statistics));
        assert_eq!(Endpoint::of("/v2/models/m"), on("m", None, ModelAction::Metadata));
        assert_eq!(Endpoint::of("/models/m"), on("m", None, ModelAction::Plain));
        assert_eq!(Endpoint::of("/models/m/versions/2"), on("m", Some("2"), ModelAction::Plain));
        assert_eq!(Endpoint::of("/v1/models"), Some(Endpoint::V1Models));
        assert_eq!(Endpoint::of("/v1/models/a%20b:predict"), on("a b", None, ModelAction::Predict));
        assert_eq!(Endpoint::of("/v1/models/m"), on("m", None, ModelAction::V1Status));
        assert_eq!(Endpoint::of("/openapi.json"), Some(Endpoint::OpenApi));
        assert_eq!(Endpoint::of("/docs"), Some(Endpoint::Docs(DocsPath::Page)));
        assert_eq!(Endpoint::of("/docs/"), Some(Endpoint::Docs(DocsPath::Folder)));
        assert_eq!(Endpoint::of("/docs/page.js"), Some(Endpoint::Docs(DocsPath::File("page.js"))));
        assert_eq!(Endpoint::of("/v2/models/m/ready"), on("m", None, ModelAction::Ready));
        assert_eq!(Endpoint::of("/v2/models/m/versions/3"), on("m", Some("3"), ModelAction::Metadata));
        assert_eq!(Endpoint::of("/v2/models/m/versions/3/infer"), on("m", Some("3"), ModelAction::Infer));
        assert_eq!(Endpoint::of("/v2/models/m/generate"), on("m", None, ModelAction::Generate));
        let stream = on("m", Some("1"), ModelAction::GenerateStream);
        assert_eq!(Endpoint::of("/v2/models/m/versions/1/generate_stream"), stream);
        assert_eq!(Endpoint::of("/v2/repository/index"), Some(Endpoint::RepositoryIndex));
        for path in [
            "/v2/repository/models/m/load",
            "/v2/models/m/trace/setting",
            "/v2/trace/setting",
            "/v2/logging",
            "/v2/cudasharedmemory/region/r/register",
        ] {
            assert!(matches!(Endpoint::of(path), Some(Endpoint::Unbuilt(_))), "{path}");
        }
    }

    #[test]
    fn shared_memory_is_asked_about_as_a_whole_or_by_region() {
        let name = || Cow::from("a b");
        for (path, endpoint) in [
            ("/v2/systemsharedmemory/status", Endpoint::Regions(None)),
            ("/v2/systemsharedmemory/region/a%20b/status", Endpoint::Regions(Some(name()))),
            ("/v2/systemsharedmemory/region/a%20b/register", Endpoint::Register(name())),
            ("/v2/systemsharedmemory/region/a%20b/unregister", Endpoint::Unregister(Some(name()))),
            ("/v2/systemsharedmemory/unregister", Endpoint::Unregister(None)),
            ("/v2/cudasharedmemory/status", Endpoint::CudaRegions),
            ("/v2/cudasharedmemory/region/r/status", Endpoint::CudaRegions),
            ("/v2/cudasharedmemory/unregister", Endpoint::CudaUnregister),
        ] {
            assert_eq!(Endpoint::of(path), Some(endpoint), "{path}");
        }
        for path in [
            "/v2/systemsharedmemory",
            "/v2/systemsharedmemory/register",
            "/v2/systemsharedmemory/region/r",
            "/v2/systemsharedmemory/region//status",
            "/v2/systemsharedmemory/region/r/status/x",
            "/v2/systemsharedmemory/other",
            "/v2/cudasharedmemory/register",
        ] {
            assert_eq!(Endpoint::of(path), None, "{path}");
        }
    }

    #[test]
    fn a_path_that_is_longer_shorter_or_other_has_none() {
        for path in [
            "",
            "/",
            "v2",
            "/v1",
            "/docs/page.js/x",
            "/docs/../x",
            "/v2/health",
            "/v2/health/live/x",
            "/v2/models",
            "/v2/models/",
            "/v2/models//infer",
            "/v2/models/m/infer/x",
            "/v2/models/m/versions",
            "/v2/models/m/other",
            "/v2/models/%zz",
            "/v2/models/%ff",
            "/v2/models/%4",
            "/v2/repository/models/m/other",
            "/v2/logging/x",
            "/v2/models/m/trace/other",
        ] {
            assert_eq!(Endpoint::of(path), None, "{path}");
        }
    }

    #[test]
    fn names_are_percent_decoded_and_never_split_by_what_they_decode_to() {
        assert_eq!(Endpoint::of("/v2/models/a%2Fb%20c"), on("a/b c", None, ModelAction::Metadata));
    }
}
