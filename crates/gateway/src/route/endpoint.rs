//! Turns a path into a route, and says which methods the route takes.
//!
//! Reads the path of a request, hands back a [`Route`] that borrows from it. Knows nothing of which models exist:
//! an unknown model is found out later, an unknown path here.

use std::borrow::Cow;

use http::Method;

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/v2`: who is this.
    Server,
    /// `/v2/health/live`.
    Live,
    /// `/v2/health/ready`.
    Ready,
    /// `/v2/models/stats`: counters of every model.
    AllStatistics,
    /// `/v2/repository/index`.
    RepositoryIndex,
    /// `/openapi.json`: what can be asked, for programs.
    OpenApi,
    /// `/docs`: the same, for people.
    Docs(DocsRoute<'a>),
    /// `/v1/models`: names.
    V1Models,
    /// Something under one model.
    Model(ModelPath<'a>, ModelRoute),
    /// `/v2/systemsharedmemory[/region/{name}]/status`: what is registered.
    Regions(Option<Cow<'a, str>>),
    /// `/v2/systemsharedmemory/region/{name}/register`.
    Register(Cow<'a, str>),
    /// `/v2/systemsharedmemory[/region/{name}]/unregister`.
    Unregister(Option<Cow<'a, str>>),
    /// The same of CUDA, of which there is nothing.
    CudaRegions,
    /// Clients begin with it, to be sure.
    CudaUnregister,
    /// In the protocol or in Triton's extensions, but not in this server: the feature, and what to do instead.
    Unbuilt(&'static str),
}

/// What is asked of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DocsRoute<'a> {
    /// `/docs`.
    Page,
    /// `/docs/`.
    Folder,
    /// `/docs/{name}`.
    File(&'a str),
}

/// What is asked of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModelRoute {
    /// The metadata.
    Metadata,
    /// Is it ready.
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

/// A model and, where the path names one, its version; percent-decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelPath<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) version: Option<Cow<'a, str>>,
}

const GET: &[Method] = &[Method::GET, Method::HEAD];
const POST: &[Method] = &[Method::POST];

impl<'a> Route<'a> {
    /// The route of `path`; `None` where there is none.
    pub(crate) fn of(path: &'a str) -> Option<Route<'a>> {
        let path = path.strip_prefix('/')?;
        let mut segments = path.strip_suffix('/').unwrap_or(path).split('/');
        match segments.next() {
            Some("v2") => {}
            Some("models") => return plain(segments),
            Some("v1") => return first_version(segments),
            Some("docs") => {
                let route = segments.next().map_or(DocsRoute::Page, DocsRoute::File);
                let route = if path == "docs/" { DocsRoute::Folder } else { route };
                return segments.next().is_none().then_some(Route::Docs(route));
            }
            Some("openapi.json") => return segments.next().is_none().then_some(Route::OpenApi),
            _ => return None,
        }
        let route = match (segments.next(), segments.next()) {
            (None, _) => Route::Server,
            (Some("models"), Some(name)) => return model(name, segments),
            (Some("health"), Some("live")) => Route::Live,
            (Some("health"), Some("ready")) => Route::Ready,
            (Some("repository"), Some("index")) => Route::RepositoryIndex,
            (Some("repository"), Some("models")) => {
                let (_name, action) = (segments.next()?, segments.next()?);
                let feature = match action {
                    "load" => "loading a model by request; models are named when 'inferd serve' starts",
                    "unload" => "unloading a model by request; models are named when 'inferd serve' starts",
                    _ => return None,
                };
                Route::Unbuilt(feature)
            }
            (Some("trace"), Some("setting")) => Route::Unbuilt(TRACE),
            (Some("logging"), None) => Route::Unbuilt("changing log settings by request"),
            (Some(kind @ ("systemsharedmemory" | "cudasharedmemory")), Some(next)) => {
                return memory(kind == "cudasharedmemory", next, segments);
            }
            _ => return None,
        };
        segments.next().is_none().then_some(route)
    }

    /// The methods that the route takes; any for what is not built.
    pub(crate) fn methods(&self) -> &'static [Method] {
        match self {
            Route::Model(
                _,
                ModelRoute::Infer
                | ModelRoute::Plain
                | ModelRoute::Predict
                | ModelRoute::Generate
                | ModelRoute::GenerateStream,
            )
            | Route::RepositoryIndex
            | Route::Register(_)
            | Route::Unregister(_)
            | Route::CudaUnregister => POST,
            Route::Unbuilt(_) => &[],
            _ => GET,
        }
    }

    /// Whether the route takes `method`.
    pub(crate) fn takes(&self, method: &Method) -> bool {
        matches!(self, Route::Unbuilt(_)) || self.methods().contains(method)
    }
}

/// Why there is no CUDA shared memory, and what to do instead.
pub(crate) const CUDA_SHARED_MEMORY: &str = "CUDA shared memory, since workers take tensors from the host's memory; send tensors in the request, or use system \
     shared memory";

const TRACE: &str = "changing trace settings by request; set otlp_endpoint instead";

/// `[region/{name}/]{action}`.
fn memory<'a>(cuda: bool, next: &'a str, mut segments: std::str::Split<'a, char>) -> Option<Route<'a>> {
    let (name, action) = match next {
        "region" => (Some(percent_decoded(segments.next()?)?), segments.next()?),
        action => (None, action),
    };
    if segments.next().is_some() || name.as_ref().is_some_and(|name| name.is_empty()) {
        return None;
    }
    match (action, name) {
        ("status", _) if cuda => Some(Route::CudaRegions),
        ("unregister", _) if cuda => Some(Route::CudaUnregister),
        ("register", Some(_)) if cuda => Some(Route::Unbuilt(CUDA_SHARED_MEMORY)),
        ("status", name) => Some(Route::Regions(name)),
        ("unregister", name) => Some(Route::Unregister(name)),
        ("register", Some(name)) => Some(Route::Register(name)),
        _ => None,
    }
}

fn model<'a>(name: &'a str, mut segments: std::str::Split<'a, char>) -> Option<Route<'a>> {
    let mut next = segments.next();
    // A model may be called `stats` all the same: only the bare path means the counters of all, as in Triton.
    if name == "stats" && next.is_none() {
        return Some(Route::AllStatistics);
    }
    let name = percent_decoded(name)?;
    let mut version = None;
    if next == Some("versions") {
        version = Some(percent_decoded(segments.next()?)?);
        next = segments.next();
    }
    let action = match next {
        None => ModelRoute::Metadata,
        Some("ready") => ModelRoute::Ready,
        Some("config") => ModelRoute::Config,
        Some("stats") => ModelRoute::Statistics,
        Some("infer") => ModelRoute::Infer,
        Some("generate") => ModelRoute::Generate,
        Some("generate_stream") => ModelRoute::GenerateStream,
        Some("trace") => {
            return (segments.next() == Some("setting") && segments.next().is_none())
                .then_some(Route::Unbuilt(TRACE));
        }
        Some(_) => return None,
    };
    if segments.next().is_some() || name.is_empty() {
        return None;
    }
    Some(Route::Model(ModelPath { name, version }, action))
}

/// `{name}[/versions/{version}]` behind `/models`.
fn plain<'a>(mut segments: std::str::Split<'a, char>) -> Option<Route<'a>> {
    let name = percent_decoded(segments.next()?)?;
    let version = match segments.next() {
        None => None,
        Some("versions") => Some(percent_decoded(segments.next()?)?),
        Some(_) => return None,
    };
    (segments.next().is_none() && !name.is_empty())
        .then_some(Route::Model(ModelPath { name, version }, ModelRoute::Plain))
}

/// `models[/{name}[:predict]]` behind `/v1`.
fn first_version<'a>(mut segments: std::str::Split<'a, char>) -> Option<Route<'a>> {
    if segments.next() != Some("models") {
        return None;
    }
    let Some(last) = segments.next() else { return Some(Route::V1Models) };
    let (name, route) = match last.strip_suffix(":predict") {
        Some(name) => (name, ModelRoute::Predict),
        None => (last, ModelRoute::V1Status),
    };
    let name = percent_decoded(name)?;
    (segments.next().is_none() && !name.is_empty())
        .then_some(Route::Model(ModelPath { name, version: None }, route))
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

    fn on<'a>(name: &'a str, version: Option<&'a str>, route: ModelRoute) -> Option<Route<'a>> {
        Some(Route::Model(ModelPath { name: name.into(), version: version.map(Into::into) }, route))
    }

    #[test]
    fn every_path_of_the_protocol_has_its_route() {
        assert_eq!(Route::of("/v2"), Some(Route::Server));
        assert_eq!(Route::of("/v2/"), Some(Route::Server));
        assert_eq!(Route::of("/v2/health/live"), Some(Route::Live));
        assert_eq!(Route::of("/v2/health/ready"), Some(Route::Ready));
        assert_eq!(Route::of("/v2/models/stats"), Some(Route::AllStatistics));
        assert_eq!(Route::of("/v2/models/stats/stats"), on("stats", None, ModelRoute::Statistics));
        assert_eq!(Route::of("/v2/models/m"), on("m", None, ModelRoute::Metadata));
        assert_eq!(Route::of("/models/m"), on("m", None, ModelRoute::Plain));
        assert_eq!(Route::of("/models/m/versions/2"), on("m", Some("2"), ModelRoute::Plain));
        assert_eq!(Route::of("/v1/models"), Some(Route::V1Models));
        assert_eq!(Route::of("/v1/models/a%20b:predict"), on("a b", None, ModelRoute::Predict));
        assert_eq!(Route::of("/v1/models/m"), on("m", None, ModelRoute::V1Status));
        assert_eq!(Route::of("/openapi.json"), Some(Route::OpenApi));
        assert_eq!(Route::of("/docs"), Some(Route::Docs(DocsRoute::Page)));
        assert_eq!(Route::of("/docs/"), Some(Route::Docs(DocsRoute::Folder)));
        assert_eq!(Route::of("/docs/page.js"), Some(Route::Docs(DocsRoute::File("page.js"))));
        assert_eq!(Route::of("/v2/models/m/ready"), on("m", None, ModelRoute::Ready));
        assert_eq!(Route::of("/v2/models/m/versions/3"), on("m", Some("3"), ModelRoute::Metadata));
        assert_eq!(Route::of("/v2/models/m/versions/3/infer"), on("m", Some("3"), ModelRoute::Infer));
        assert_eq!(Route::of("/v2/models/m/generate"), on("m", None, ModelRoute::Generate));
        let stream = on("m", Some("1"), ModelRoute::GenerateStream);
        assert_eq!(Route::of("/v2/models/m/versions/1/generate_stream"), stream);
        assert_eq!(Route::of("/v2/repository/index"), Some(Route::RepositoryIndex));
        for path in [
            "/v2/repository/models/m/load",
            "/v2/models/m/trace/setting",
            "/v2/trace/setting",
            "/v2/logging",
            "/v2/cudasharedmemory/region/r/register",
        ] {
            assert!(matches!(Route::of(path), Some(Route::Unbuilt(_))), "{path}");
        }
    }

    #[test]
    fn shared_memory_is_asked_about_as_a_whole_or_by_region() {
        let name = || Cow::from("a b");
        for (path, route) in [
            ("/v2/systemsharedmemory/status", Route::Regions(None)),
            ("/v2/systemsharedmemory/region/a%20b/status", Route::Regions(Some(name()))),
            ("/v2/systemsharedmemory/region/a%20b/register", Route::Register(name())),
            ("/v2/systemsharedmemory/region/a%20b/unregister", Route::Unregister(Some(name()))),
            ("/v2/systemsharedmemory/unregister", Route::Unregister(None)),
            ("/v2/cudasharedmemory/status", Route::CudaRegions),
            ("/v2/cudasharedmemory/region/r/status", Route::CudaRegions),
            ("/v2/cudasharedmemory/unregister", Route::CudaUnregister),
        ] {
            assert_eq!(Route::of(path), Some(route), "{path}");
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
            assert_eq!(Route::of(path), None, "{path}");
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
            assert_eq!(Route::of(path), None, "{path}");
        }
    }

    #[test]
    fn names_are_percent_decoded_and_never_split_by_what_they_decode_to() {
        assert_eq!(Route::of("/v2/models/a%2Fb%20c"), on("a/b c", None, ModelRoute::Metadata));
    }
}
