//! Data frames in JSON and CSV, as `MLflow` and `SageMaker` take them, and what else an invocation may hold.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use kingpole_values::{Error, InferRequest, Parameters, Result, Tensor};
use serde_json::value::RawValue;

use super::column::Column;
use super::cursor::Cursor;
use super::predict::read_values;
use super::{DeclaredInput, JsonPredict, Layout, find_input, names, only_input, shown};
use crate::rest::schema;
use crate::rest::schema::{ParametersJson, parameters};

#[derive(serde::Deserialize)]
#[serde(expecting = "an object")]
struct InvocationJson<'a> {
    #[serde(borrow)]
    instances: Option<&'a RawValue>,
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
    #[serde(borrow)]
    dataframe_split: Option<&'a RawValue>,
    #[serde(borrow)]
    dataframe_records: Option<&'a RawValue>,
    #[serde(borrow)]
    params: Option<ParametersJson<'a>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object of columns, index and data")]
struct SplitJson<'a> {
    #[serde(borrow)]
    columns: Option<&'a RawValue>,
    #[serde(rename = "index")]
    _index: Option<serde::de::IgnoredAny>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Decode the JSON of an invocation: exactly one of `dataframe_split`, `dataframe_records`, `instances`
/// and `inputs`. `None` if the last is Open Inference's, which has a decoder of its own.
///
/// # Errors
/// `INVALID_ARGUMENT` for anything malformed, naming the tensor and the place in it.
#[allow(clippy::needless_pass_by_value)] // parameters are views of the body: this gives it away
pub fn decode_invocation(body: Bytes, declared: &[DeclaredInput]) -> Result<Option<JsonPredict>> {
    let fields: InvocationJson<'_> = schema::read(&body)?;
    let given = [
        fields.instances.is_some(),
        fields.inputs.is_some(),
        fields.dataframe_split.is_some(),
        fields.dataframe_records.is_some(),
    ];
    if given.iter().filter(|&&given| given).count() != 1 {
        return Err(Error::invalid(
            "expected exactly one of 'dataframe_split', 'dataframe_records', 'instances' and 'inputs'",
        ));
    }
    if let Some(inputs) = fields.inputs
        && is_open_inference(Cursor::new(inputs.get()))?
    {
        return Ok(None);
    }
    let parameters = parameters(&body, fields.params)?;
    let mut predict = match (fields.dataframe_split, fields.dataframe_records) {
        (Some(split), _) => of_frame(read_split(&schema::read(split.get().as_bytes())?, declared)?),
        (_, Some(records)) => of_frame(read_records(Cursor::new(records.get()), declared)?),
        _ => read_values(fields.instances, fields.inputs, None, declared)?,
    };
    predict.request.parameters = parameters;
    Ok(Some(predict))
}

fn of_frame(inputs: Vec<Tensor>) -> JsonPredict {
    let request = InferRequest { inputs, parameters: Parameters::new(), ..InferRequest::default() };
    JsonPredict { request, layout: Layout::Rows, signature: None }
}

/// Open Inference's inputs are a list of objects that say their datatype.
fn is_open_inference(mut inputs: Cursor<'_>) -> Result<bool> {
    if !inputs.enter(b'[') || !inputs.enter(b'{') {
        return Ok(false);
    }
    while inputs.member(b'}') {
        if inputs.key()? == "datatype" {
            return Ok(true);
        }
        inputs.skip();
    }
    Ok(false)
}

/// The rows of a frame, being turned into inputs.
enum Frame<'a> {
    /// Each column is an input of its name.
    Columns(Vec<Column<'a>>),
    /// All columns together are the model's only input.
    Matrix(Column<'a>),
}

impl<'a> Frame<'a> {
    fn new(columns: Option<&[Cow<'_, str>]>, declared: &'a [DeclaredInput]) -> Result<Self> {
        let Some(columns) = columns else {
            return Ok(Self::Matrix(Column::new(&declared[only_input(declared)?])));
        };
        let indexes: Vec<Result<usize>> =
            columns.iter().take(declared.len() + 1).map(|name| find_input(declared, name)).collect();
        if columns.len() <= declared.len() && indexes.iter().all(Result::is_ok) && !columns.is_empty() {
            let columns = indexes.into_iter().flatten().map(|index| Column::new(&declared[index]));
            return Ok(Self::Columns(columns.collect()));
        }
        only_input(declared).map(|index| Self::Matrix(Column::new(&declared[index]))).map_err(|_| {
            let unknown = columns.iter().find(|name| find_input(declared, name).is_err());
            let unknown = unknown.map_or("a column that comes twice", |name| name);
            Error::invalid(format!(
                "column '{}' is no input of the model, expected: {}",
                shown(unknown),
                names(declared)
            ))
        })
    }

    fn add(&mut self, row: usize, cells: Vec<Cursor<'_>>) -> Result<()> {
        match self {
            Self::Matrix(column) => column.cells(cells.into_iter()),
            Self::Columns(columns) => {
                check_width(row, cells.len(), columns.len())?;
                columns.iter_mut().zip(cells).try_for_each(|(column, mut cell)| column.row(&mut cell))
            }
        }
    }

    fn add_texts(&mut self, row: usize, cells: &csv::StringRecord) -> Result<()> {
        match self {
            Self::Matrix(column) => column.texts(cells.iter()),
            Self::Columns(columns) => {
                check_width(row, cells.len(), columns.len())?;
                columns.iter_mut().zip(cells).try_for_each(|(column, cell)| column.text_row(cell))
            }
        }
    }

    fn finish(self) -> Vec<Tensor> {
        match self {
            Self::Matrix(column) => vec![column.finish_fitted()],
            Self::Columns(columns) => columns.into_iter().map(Column::finish_fitted).collect(),
        }
    }
}

fn check_width(row: usize, width: usize, columns: usize) -> Result<()> {
    if width == columns {
        return Ok(());
    }
    Err(Error::invalid(format!("row {row} of the data frame has {width} values for {columns} columns")))
}

fn empty() -> Error {
    Error::invalid("the data frame has no rows")
}

fn read_split(split: &SplitJson<'_>, declared: &[DeclaredInput]) -> Result<Vec<Tensor>> {
    let columns = split.columns.map(|columns| read_names(Cursor::new(columns.get()))).transpose()?.flatten();
    let mut frame = Frame::new(columns.as_deref(), declared)?;
    let mut cursor = Cursor::new(split.data.get());
    if !cursor.enter(b'[') {
        return Err(Error::invalid("'data' of the data frame must be a list of rows"));
    }
    let mut row = 0;
    while cursor.member(b']') {
        if !cursor.enter(b'[') {
            return Err(Error::invalid(format!("row {row} of the data frame must be a list")));
        }
        let mut cells = Vec::new();
        while cursor.member(b']') {
            cells.push(cursor.value());
        }
        if let Some(columns) = &columns {
            check_width(row, cells.len(), columns.len())?;
        }
        frame.add(row, cells)?;
        row += 1;
    }
    if row == 0 { Err(empty()) } else { Ok(frame.finish()) }
}

/// The columns' names; numbers are names too. `None` for null.
fn read_names(mut cursor: Cursor<'_>) -> Result<Option<Vec<Cow<'_, str>>>> {
    if cursor.peek() == b'n' {
        return Ok(None);
    }
    let unfit = || Error::invalid("'columns' of the data frame must be a list of names");
    if !cursor.enter(b'[') {
        return Err(unfit());
    }
    let mut names = Vec::new();
    while cursor.member(b']') {
        names.push(match cursor.peek() {
            b'"' => cursor.string()?,
            b'[' | b'{' => return Err(unfit()),
            _ => String::from_utf8_lossy(cursor.value().rest()),
        });
    }
    Ok(Some(names))
}

fn read_records(mut cursor: Cursor<'_>, declared: &[DeclaredInput]) -> Result<Vec<Tensor>> {
    if !cursor.enter(b'[') {
        return Err(Error::invalid("'dataframe_records' must be a list of records"));
    }
    // Columns by name, in the order of the first record.
    let mut columns: HashMap<Cow<'_, str>, usize> = HashMap::new();
    let mut frame = None;
    let mut row = 0;
    while cursor.member(b']') {
        if !cursor.enter(b'{') {
            return Err(Error::invalid(format!("record {row} must be an object")));
        }
        let mut cells: Vec<Option<Cursor<'_>>> = vec![None; columns.len()];
        let mut order = Vec::new();
        while cursor.member(b'}') {
            let name = cursor.key()?;
            let index = match columns.get(&name) {
                Some(&index) => index,
                None if row == 0 => {
                    order.push(name.clone());
                    columns.insert(name.clone(), cells.len());
                    cells.push(None);
                    cells.len() - 1
                }
                None => {
                    let name = shown(&name);
                    return Err(Error::invalid(format!("record {row} has '{name}', which record 0 has not")));
                }
            };
            if cells[index].replace(cursor.value()).is_some() {
                return Err(Error::invalid(format!("record {row} has '{}' twice", shown(&name))));
            }
        }
        if let Some(index) = cells.iter().position(Option::is_none) {
            let lacking = columns.iter().find(|(_, other)| **other == index).map_or("", |(name, _)| name);
            return Err(Error::invalid(format!(
                "record {row} lacks '{}', which record 0 has",
                shown(lacking)
            )));
        }
        let frame = match &mut frame {
            Some(frame) => frame,
            None => frame.insert(Frame::new(Some(&order), declared)?),
        };
        frame.add(row, cells.into_iter().flatten().collect())?;
        row += 1;
    }
    frame.map(Frame::finish).ok_or_else(empty)
}

/// Decode a data frame in CSV. `header` is what the media type says of its first line, if it does.
///
/// Unsaid, the first line is the columns' names if any field of it is not a number.
///
/// # Errors
/// `INVALID_ARGUMENT` for anything malformed, naming the tensor and the place in it, and where the first line
/// may be either.
pub fn decode_csv(body: &[u8], header: Option<bool>, declared: &[DeclaredInput]) -> Result<JsonPredict> {
    let malformed = |error: csv::Error| Error::invalid(format!("malformed CSV: {error}"));
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(body);
    let mut records = reader.records();
    let Some(first) = records.next() else { return Err(empty()) };
    let first = first.map_err(malformed)?;
    let has_names = match header {
        Some(header) => header,
        None if first.iter().any(|field| field.trim().parse::<f64>().is_err()) => true,
        None if first.iter().enumerate().all(|(index, field)| *field == index.to_string()) => {
            return Err(Error::invalid(
                "the first line may be the columns' names or a row: say 'text/csv; header=present' or \
                 'header=absent'",
            ));
        }
        None => false,
    };
    let columns: Option<Vec<Cow<'_, str>>> = has_names.then(|| first.iter().map(Cow::Borrowed).collect());
    let mut frame = Frame::new(columns.as_deref(), declared)?;
    let mut row = 0;
    if !has_names {
        frame.add_texts(row, &first)?;
        row += 1;
    }
    for record in records {
        frame.add_texts(row, &record.map_err(malformed)?)?;
        row += 1;
    }
    if row == 0 { Err(empty()) } else { Ok(of_frame(frame.finish())) }
}
