//! The only place that touches ONNX Runtime's C API; everything it gives out is safe to use.
//!
//! Invariants: every pointer here came from the API, is not null and is released exactly once, by
//! the `Drop` of the type that holds it. The library is never unloaded.
//!
//! Source: `onnxruntime/core/session/onnxruntime_c_api.h`; the types are those of crate `ort-sys`.

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use kingpole_values::{Code, Error, Result, Shape};
use ort_sys as sys;

use super::{GraphOptimization, Metadata, SessionConfiguration};

/// The function table and the process-wide objects that every session needs.
pub(super) struct Api {
    table: &'static sys::OrtApi,
    environment: NonNull<sys::OrtEnv>,
    cpu: NonNull<sys::OrtMemoryInfo>,
    allocator: NonNull<sys::OrtAllocator>,
    version: String,
}

// SAFETY: the environment, the CPU memory description and the default allocator may be used from
// any thread at once (onnxruntime_c_api.h); the table is immutable.
unsafe impl Send for Api {}
// SAFETY: as above.
unsafe impl Sync for Api {}

/// Call a function of the table that gives its result through a last argument, a pointer.
macro_rules! get {
    ($api:expr, $function:ident ( $($argument:expr),* )) => {{
        let mut out = ptr::null_mut();
        // SAFETY: the arguments are valid for this function by the invariants of the types that
        // hold them, and `out` is a place for its result.
        let status = unsafe { ($api.table.$function)($($argument,)* &raw mut out) };
        $api.check(status).and_then(|()| {
            NonNull::new(out).ok_or_else(|| Error::internal(concat!("ONNX Runtime: no result from ", stringify!($function))))
        })
    }};
}

/// Call a function of the table that only gives a status.
macro_rules! call {
    ($api:expr, $function:ident ( $($argument:expr),* )) => {{
        // SAFETY: the arguments are valid for this function by the invariants of the types that
        // hold them; those passed as places for a result live until it returns.
        let status = unsafe { ($api.table.$function)($($argument),*) };
        $api.check(status)
    }};
}

impl Api {
    pub fn load(path: &Path) -> Result<Self> {
        let refuse = |reason: String| Error::new(Code::FailedPrecondition, format!("ONNX Runtime: {reason}"));
        // SAFETY: the library's initializers are those of ONNX Runtime, named by the operator.
        let library =
            unsafe { libloading::Library::new(path) }.map_err(|error| refuse(format!("{error}")))?;
        // SAFETY: the symbol has this signature in every version of ONNX Runtime.
        let base = unsafe {
            library
                .get::<unsafe extern "system" fn() -> *const sys::OrtApiBase>(b"OrtGetApiBase\0")
                .map_err(|error| refuse(format!("{error}")))?()
        };
        // Its threads and static destructors do not survive unloading: it stays for good.
        std::mem::forget(library);
        // SAFETY: the base is a static of the library, which stays loaded; null is checked.
        let base = unsafe { base.as_ref() }.ok_or_else(|| refuse("it offers no API".to_owned()))?;
        // SAFETY: both functions may be called at any time; the version is a static C string.
        let (version, table) = unsafe {
            let version = CStr::from_ptr((base.GetVersionString)()).to_string_lossy().into_owned();
            (version, (base.GetApi)(sys::ORT_API_VERSION).as_ref())
        };
        let table = table.ok_or_else(|| {
            refuse(format!("version {version} is too old, needed is 1.{} or newer", sys::ORT_API_VERSION))
        })?;
        let mut api = Self {
            table,
            environment: NonNull::dangling(),
            cpu: NonNull::dangling(),
            allocator: NonNull::dangling(),
            version,
        };
        let made = (|| {
            let name = c"kingpole";
            let level = sys::OrtLoggingLevel::ORT_LOGGING_LEVEL_WARNING;
            let environment = get!(api, CreateEnv(level, name.as_ptr()))?;
            let cpu = get!(
                api,
                CreateCpuMemoryInfo(
                    sys::OrtAllocatorType::OrtArenaAllocator,
                    sys::OrtMemType::OrtMemTypeDefault
                )
            )?;
            let allocator = get!(api, GetAllocatorWithDefaultOptions())?;
            call!(api, DisableTelemetryEvents(environment.as_ptr()))?;
            Ok((environment, cpu, allocator))
        })();
        match made {
            Ok((environment, cpu, allocator)) => {
                (api.environment, api.cpu, api.allocator) = (environment, cpu, allocator);
                Ok(api)
            }
            Err(error) => {
                // The dangling pointers must not reach `drop`.
                std::mem::forget(api);
                Err(error)
            }
        }
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn available_providers(&self) -> Result<Vec<String>> {
        let (mut names, mut length): (*mut *mut c_char, c_int) = (ptr::null_mut(), 0);
        call!(self, GetAvailableProviders(&raw mut names, &raw mut length))?;
        let found = (0..usize::try_from(length).unwrap_or(0))
            // SAFETY: the API gave `length` C strings.
            .map(|index| unsafe { CStr::from_ptr(*names.add(index)) }.to_string_lossy().into_owned())
            .collect();
        call!(self, ReleaseAvailableProviders(names, length))?;
        Ok(found)
    }

    /// Turn a status into a result, and release it.
    fn check(&self, status: sys::OrtStatusPtr) -> Result<()> {
        let status = status.0;
        if status.is_null() {
            return Ok(());
        }
        // SAFETY: a status that is not null is ours to read and release, once. The code is read as
        // an integer: a newer library may give values that the enum here does not have.
        let (code, message) = unsafe {
            let get_code: unsafe extern "system" fn(*const sys::OrtStatus) -> i32 =
                std::mem::transmute(self.table.GetErrorCode);
            let code = get_code(status);
            let message = CStr::from_ptr((self.table.GetErrorMessage)(status)).to_string_lossy().into_owned();
            (self.table.ReleaseStatus)(status);
            (code, message)
        };
        let code = match code {
            2 => Code::InvalidArgument,
            _ => Code::Internal,
        };
        Err(Error::new(code, format!("ONNX Runtime: {message}")))
    }

    /// Take a string that the API allocated.
    fn take_string(&self, text: NonNull<c_char>) -> Result<String> {
        // SAFETY: the API gave a C string, which is ours until freed just below.
        let owned = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
        call!(self, AllocatorFree(self.allocator.as_ptr(), text.as_ptr().cast()))?;
        Ok(owned)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        // SAFETY: both are ours, and every session holds the `Api` it came from. The default
        // allocator belongs to the library.
        unsafe {
            (self.table.ReleaseMemoryInfo)(self.cpu.as_ptr());
            (self.table.ReleaseEnv)(self.environment.as_ptr());
        }
    }
}

/// Which side of a session.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Input,
    Output,
}

/// What a session says of one input or output.
pub(super) struct Declared {
    pub name: String,
    /// Number of an `ONNXType`; 1 is a tensor.
    pub kind: i32,
    /// Number of an `ONNXTensorElementDataType`; 0 for what is not a tensor.
    pub element: i32,
    pub shape: Shape,
}

/// An open session.
pub(super) struct RawSession {
    api: Arc<Api>,
    session: NonNull<sys::OrtSession>,
}

// SAFETY: a session may be run from any number of threads at once (onnxruntime_c_api.h, `Run`), and
// everything else here only reads.
unsafe impl Send for RawSession {}
// SAFETY: as above.
unsafe impl Sync for RawSession {}

impl Drop for RawSession {
    fn drop(&mut self) {
        // SAFETY: ours, and released once.
        unsafe { (self.api.table.ReleaseSession)(self.session.as_ptr()) };
    }
}

/// A string without NUL for the API.
pub(super) fn c_string(text: &[u8]) -> Result<CString> {
    CString::new(text).map_err(|_| Error::invalid("a name or a path holds a NUL byte"))
}

impl RawSession {
    pub fn open(api: &Arc<Api>, path: &Path, configuration: &SessionConfiguration) -> Result<Self> {
        let path = c_string(path.as_os_str().as_bytes())?;
        let options = get!(api, CreateSessionOptions())?;
        let session = Self::set_options(api, options, configuration).and_then(|()| {
            get!(api, CreateSession(api.environment.as_ptr(), path.as_ptr(), options.as_ptr()))
        });
        // SAFETY: ours, and the session has taken what it needs.
        unsafe { (api.table.ReleaseSessionOptions)(options.as_ptr()) };
        Ok(Self { api: Arc::clone(api), session: session? })
    }

    fn set_options(
        api: &Api,
        options: NonNull<sys::OrtSessionOptions>,
        configuration: &SessionConfiguration,
    ) -> Result<()> {
        let options = options.as_ptr();
        let level = match configuration.graph_optimization {
            GraphOptimization::Disabled => sys::GraphOptimizationLevel::ORT_DISABLE_ALL,
            GraphOptimization::Basic => sys::GraphOptimizationLevel::ORT_ENABLE_BASIC,
            GraphOptimization::Extended => sys::GraphOptimizationLevel::ORT_ENABLE_EXTENDED,
            GraphOptimization::All => sys::GraphOptimizationLevel::ORT_ENABLE_ALL,
        };
        call!(api, SetSessionGraphOptimizationLevel(options, level))?;
        call!(api, SetIntraOpNumThreads(options, c_int::from(configuration.intra_op_threads)))?;
        call!(api, SetInterOpNumThreads(options, c_int::from(configuration.inter_op_threads)))?;
        if configuration.inter_op_threads > 1 {
            call!(api, SetSessionExecutionMode(options, sys::ExecutionMode::ORT_PARALLEL))?;
        }
        let spinning = if configuration.allow_spinning { c"1" } else { c"0" };
        for key in [c"session.intra_op.allow_spinning", c"session.inter_op.allow_spinning"] {
            call!(api, AddSessionConfigEntry(options, key.as_ptr(), spinning.as_ptr()))?;
        }
        for (key, value) in &configuration.entries {
            let (key, value) = (c_string(key.as_bytes())?, c_string(value.as_bytes())?);
            call!(api, AddSessionConfigEntry(options, key.as_ptr(), value.as_ptr()))?;
        }
        Ok(())
    }

    pub fn declared(&self, side: Side) -> Result<Vec<Declared>> {
        let api = &*self.api;
        let session = self.session.as_ptr();
        let mut count = 0usize;
        match side {
            Side::Input => call!(api, SessionGetInputCount(session, &raw mut count))?,
            Side::Output => call!(api, SessionGetOutputCount(session, &raw mut count))?,
        }
        let mut found = Vec::with_capacity(count);
        for index in 0..count {
            let allocator = api.allocator.as_ptr();
            let (name, info) = match side {
                Side::Input => (
                    get!(api, SessionGetInputName(session, index, allocator))?,
                    get!(api, SessionGetInputTypeInfo(session, index))?,
                ),
                Side::Output => (
                    get!(api, SessionGetOutputName(session, index, allocator))?,
                    get!(api, SessionGetOutputTypeInfo(session, index))?,
                ),
            };
            let mut kind = 0i32;
            let described = (|| {
                let name = api.take_string(name)?;
                // Enums are read as integers, for a newer library may know more of them.
                call!(api, GetOnnxTypeFromTypeInfo(info.as_ptr(), (&raw mut kind).cast()))?;
                let mut tensor = ptr::null();
                call!(api, CastTypeInfoToTensorInfo(info.as_ptr(), &raw mut tensor))?;
                // Null for what is not a tensor; it belongs to `info`.
                let (element, shape) =
                    if tensor.is_null() { (0, Shape::default()) } else { tensor_type(api, tensor)? };
                Ok(Declared { name, kind, element, shape })
            })();
            // SAFETY: ours, and nothing read from it is kept.
            unsafe { (api.table.ReleaseTypeInfo)(info.as_ptr()) };
            found.push(described?);
        }
        Ok(found)
    }

    pub fn metadata(&self) -> Result<Metadata> {
        let api = &*self.api;
        let metadata = get!(api, SessionGetModelMetadata(self.session.as_ptr()))?;
        let read = self.read_metadata(metadata.as_ptr());
        // SAFETY: ours, and nothing read from it is kept.
        unsafe { (api.table.ReleaseModelMetadata)(metadata.as_ptr()) };
        read
    }

    fn read_metadata(&self, metadata: *mut sys::OrtModelMetadata) -> Result<Metadata> {
        let api = &*self.api;
        let allocator = api.allocator.as_ptr();
        let mut read = Metadata {
            producer: api.take_string(get!(api, ModelMetadataGetProducerName(metadata, allocator))?)?,
            graph_name: api.take_string(get!(api, ModelMetadataGetGraphName(metadata, allocator))?)?,
            domain: api.take_string(get!(api, ModelMetadataGetDomain(metadata, allocator))?)?,
            description: api.take_string(get!(api, ModelMetadataGetDescription(metadata, allocator))?)?,
            ..Metadata::default()
        };
        call!(api, ModelMetadataGetVersion(metadata, &raw mut read.version))?;
        let (mut keys, mut count): (*mut *mut c_char, i64) = (ptr::null_mut(), 0);
        call!(
            api,
            ModelMetadataGetCustomMetadataMapKeys(metadata, allocator, &raw mut keys, &raw mut count)
        )?;
        for index in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: the API gave `count` keys, each a C string.
            let Some(key) = NonNull::new(unsafe { *keys.add(index) }) else { continue };
            let value = get!(
                api,
                ModelMetadataLookupCustomMetadataMap(metadata, allocator, key.as_ptr().cast_const())
            )
            .and_then(|value| api.take_string(value));
            read.custom.push((api.take_string(key)?, value?));
        }
        if !keys.is_null() {
            call!(api, AllocatorFree(allocator, keys.cast()))?;
        }
        read.custom.sort();
        Ok(read)
    }
}

fn tensor_type(api: &Api, info: *const sys::OrtTensorTypeAndShapeInfo) -> Result<(i32, Shape)> {
    let (mut element, mut rank) = (0i32, 0usize);
    call!(api, GetTensorElementType(info, (&raw mut element).cast()))?;
    call!(api, GetDimensionsCount(info, &raw mut rank))?;
    if rank > Shape::MAX_RANK {
        return Err(Error::new(
            Code::FailedPrecondition,
            format!("a tensor of rank {rank} is not supported"),
        ));
    }
    let mut dimensions = [0i64; Shape::MAX_RANK];
    call!(api, GetDimensions(info, dimensions.as_mut_ptr(), rank))?;
    Ok((element, Shape::new(&dimensions[..rank])))
}

// After the macros, so that it sees them.
mod value;

pub(super) use value::{Elements, Input, datatype_of};
