use std::sync::Arc;

use inferd_types::{ReplicaId, RequestContext, Sequence, Tenant, Time, Timing};
use smallvec::smallvec;

use super::*;

fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
}

fn signature(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Signature {
    Signature { inputs, outputs, batching: Batching::On, decoupled: false, extras: Extras::default() }
}

/// `memory`, `x`, `start`, `id` in; `y`, `memory_out` out.
fn counter() -> LoadedModel {
    let inputs = vec![
        spec("memory", DataType::Fp32, &[-1, 2]),
        spec("x", DataType::Fp32, &[-1, 1]),
        spec("start", DataType::Int32, &[-1, 1]),
        spec("id", DataType::Uint64, &[-1]),
    ];
    let outputs = vec![spec("y", DataType::Fp32, &[-1, 1]), spec("memory_out", DataType::Fp32, &[-1, 2])];
    LoadedModel::new(signature(inputs, outputs), BTreeMap::new())
}

fn settings() -> SequenceSettings {
    SequenceSettings {
        controls: [("start".to_owned(), Control::SequenceStart), ("id".to_owned(), Control::SequenceId)]
            .into(),
        state: vec![StateSettings { input: "memory".into(), output: "memory_out".into(), shape: None }],
        ..SequenceSettings::default()
    }
}

fn floats(shape: &[u64], values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { datatype: DataType::Fp32, shape: shape.iter().copied().collect(), data: data.into() }
}

fn elements(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk() {
        let (element, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        found.push(element.to_vec());
        data = rest;
    }
    found
}

fn new(loaded: &LoadedModel, settings: &SequenceSettings) -> Result<(Signature, ImplicitTensors)> {
    ImplicitTensors::new(loaded, Some(settings), 32).map(|found| found.expect("it hides tensors"))
}

#[test]
fn clients_see_what_they_send_and_get_alone() {
    let (seen, _) = new(&counter(), &settings()).unwrap();
    assert_eq!(seen.inputs, [spec("x", DataType::Fp32, &[-1, 1])]);
    assert_eq!(seen.outputs, [spec("y", DataType::Fp32, &[-1, 1])]);
    assert!(
        ImplicitTensors::new(&counter(), None, 32).unwrap().is_none(),
        "nothing is hidden where nothing says so"
    );
}

#[test]
fn a_request_gets_its_state_and_its_place_and_an_answer_leaves_the_state_behind() {
    let (_, implicit) = new(&counter(), &settings()).unwrap();
    let sequence = Sequence { id: SequenceId::Number(7), start: true, end: false };
    let mut request = InferRequest {
        inputs: smallvec![floats(&[1, 1], &[5.0])],
        sequence: Some(Arc::new(sequence)),
        ..InferRequest::default()
    };
    implicit.fill(&mut request, &[], None).unwrap();
    let [memory, x, start, id] = &request.inputs[..] else { panic!("{request:?}") };
    assert_eq!(*memory, floats(&[1, 2], &[0.0, 0.0]));
    assert_eq!(*x, floats(&[1, 1], &[5.0]));
    assert_eq!((start.data[..].to_vec(), &start.shape[..]), (vec![1, 0, 0, 0], &[1, 1][..]));
    assert_eq!((id.data[..].to_vec(), &id.shape[..]), (vec![7, 0, 0, 0, 0, 0, 0, 0], &[1][..]));

    let mut response = InferResponse {
        outputs: smallvec![floats(&[1, 1], &[5.0]), floats(&[1, 2], &[1.0, 2.0])],
        timing: Timing::default(),
        replica: ReplicaId(1),
        steps: Vec::new(),
    };
    let state = implicit.take_state(&mut response);
    assert_eq!(&response.outputs[..], [floats(&[1, 1], &[5.0])]);
    assert_eq!(&state[..], [floats(&[1, 2], &[1.0, 2.0])]);
    let mut next = InferRequest { inputs: smallvec![floats(&[1, 1], &[1.0])], ..InferRequest::default() };
    implicit.fill(&mut next, &state, None).unwrap();
    assert_eq!(next.inputs[0], floats(&[1, 2], &[1.0, 2.0]));
}

#[test]
fn what_came_with_a_request_stands_once_in_each_part_that_it_may_be_cut_into() {
    let mut loaded = LoadedModel::new(
        signature(
            vec![spec("x", DataType::Fp32, &[-1]), spec("about", DataType::Bytes, &[-1])],
            vec![spec("y", DataType::Fp32, &[-1])],
        ),
        BTreeMap::new(),
    );
    loaded.controls = [("about".to_owned(), Control::Context)].into();
    let (_, implicit) = ImplicitTensors::new(&loaded, None, 2).unwrap().unwrap();
    assert!(implicit.wants_context());
    let context = RequestContext {
        id: "q".into(),
        headers: vec![("x-who".into(), "me".into())],
        parameters: vec![("heat".into(), json!(0.5))],
    };
    let mut request = InferRequest {
        inputs: smallvec![floats(&[3], &[1.0, 2.0, 3.0])],
        context: Some(Arc::new(context)),
        timeout: Some(Time::ZERO),
        ..InferRequest::default()
    };
    implicit.fill(&mut request, &[], Some(9)).unwrap();
    let rows = elements(&request.inputs[1].data);
    let about: Value = serde_json::from_slice(&rows[0]).unwrap();
    let expected =
        json!({"id": "q", "headers": {"x-who": "me"}, "parameters": {"heat": 0.5}, "deadline_ns": 9});
    assert_eq!(about, expected);
    assert_eq!((rows[1].len(), &rows[2]), (0, &rows[0]));

    let many = 1 << 20;
    let long = RequestContext { id: "q".repeat(1000), ..RequestContext::default() };
    let mut request = InferRequest {
        inputs: smallvec![floats(&[many], &vec![0.0; many as usize])],
        context: Some(Arc::new(long)),
        ..InferRequest::default()
    };
    assert_eq!(implicit.fill(&mut request, &[], None).unwrap_err().kind(), ErrorKind::TooLarge);
}

#[test]
fn what_a_model_can_not_have_is_refused_with_its_name() {
    let say = |change: fn(&mut SequenceSettings)| {
        let mut settings = settings();
        change(&mut settings);
        new(&counter(), &settings).unwrap_err().to_string()
    };
    assert!(say(|it| it.state[0].input = "memroy".into()).contains("no input 'memroy'; it has memory"));
    assert!(say(|it| it.state[0].output = "z".into()).contains("no output 'z'"));
    assert!(say(|it| it.state[0].shape = Some(vec![1, 3])).contains("[1, 3]"));
    assert!(say(|it| it.controls = [("x".to_owned(), Control::SequenceId)].into()).contains("'x' is FP32"));
    assert!(
        say(|it| it.controls = [("memory".to_owned(), Control::SequenceStart)].into())
            .contains("named twice")
    );
    let mut wide = settings();
    (wide.state, wide.controls) = (Vec::new(), [("memory".to_owned(), Control::SequenceReady)].into());
    assert!(new(&counter(), &wide).unwrap_err().to_string().contains("one element"));
    let mut open = counter();
    open.signature.inputs[0].shape = vec![-1, -1];
    assert!(new(&open, &settings()).unwrap_err().to_string().contains("say the shape of the state"));
    let shaped = StateSettings { shape: Some(vec![1, 4]), ..settings().state[0].clone() };
    let (_, implicit) = new(&open, &SequenceSettings { state: vec![shaped], ..settings() }).unwrap();
    assert_eq!(implicit.initial[0].shape[..], [1, 4]);
}

fn of(tenant: u32, id: SequenceId, rows: u64) -> InferRequest {
    InferRequest {
        inputs: smallvec![floats(&[rows, 1], &vec![0.0; rows as usize])],
        tenant: Tenant { id: tenant, weight: 1 },
        sequence: Some(Arc::new(Sequence { id, start: true, end: false })),
        ..InferRequest::default()
    }
}

fn check(implicit: &ImplicitTensors, request: &InferRequest) -> Result<()> {
    implicit.check_sequence(request, &request.sequence.as_ref().unwrap().id)
}

#[test]
fn a_name_that_the_model_can_not_hold_and_several_rows_are_refused() {
    let (_, implicit) = new(&counter(), &settings()).unwrap();
    assert!(check(&implicit, &of(0, SequenceId::Number(u64::MAX), 1)).is_ok());
    let error = check(&implicit, &of(0, SequenceId::Text("a".into()), 1)).unwrap_err();
    assert!(error.message().contains("UINT64, which 'a' is not"), "{error}");
    let error = check(&implicit, &of(0, SequenceId::Number(1), 2)).unwrap_err();
    assert!(error.message().contains("this one has 2"), "{error}");
}

#[test]
fn a_model_that_remembers_by_itself_calls_the_sequences_of_tenants_by_names_of_their_own() {
    let id_of = |implicit: &ImplicitTensors, tenant: u32| {
        let mut request = of(tenant, SequenceId::Number(7), 1);
        check(implicit, &request).unwrap();
        implicit.fill(&mut request, &[], None).unwrap();
        u64::from_le_bytes(request.inputs.last().unwrap().data[..].try_into().unwrap())
    };
    let (_, kept_here) = new(&counter(), &settings()).unwrap();
    assert_eq!([id_of(&kept_here, 0), id_of(&kept_here, 1)], [7, 7], "the state tells them apart");
    let remembering = SequenceSettings { state: Vec::new(), ..settings() };
    let mut loaded = counter();
    loaded.signature.inputs.remove(0);
    let (_, implicit) = new(&loaded, &remembering).unwrap();
    let [none, one, other] = [0, 1, 2].map(|tenant| id_of(&implicit, tenant));
    assert_eq!(none, 7);
    assert!(one != 7 && other != 7 && one != other);
    assert_eq!(one, id_of(&implicit, 1), "it is the same each time");
    loaded.signature.inputs.last_mut().unwrap().datatype = DataType::Int32;
    let (_, narrow) = new(&loaded, &remembering).unwrap();
    assert!(check(&narrow, &of(0, SequenceId::Number(7), 1)).is_ok());
    let error = check(&narrow, &of(1, SequenceId::Number(7), 1)).unwrap_err();
    assert!(error.message().contains("INT64, UINT64 or BYTES"), "{error}");
}
