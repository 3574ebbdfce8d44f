//! Classify a picture with the demo model: `classify PICTURE.png [--url URL] [--model NAME] [--labels FILE]`.

use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::time::Duration;

use kingpole_client::{Client, Datatype, Request, Tensor};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(picture) = arguments.next().filter(|first| !first.starts_with("--")) else {
        eprintln!("usage: classify PICTURE.png [--url URL] [--model NAME] [--labels FILE]");
        std::process::exit(2);
    };
    let (mut url, mut model) = ("http://localhost:8000".to_owned(), "efficientnet-lite0".to_owned());
    let mut labels = Vec::new();
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--url" => url = value,
            "--model" => model = value,
            // One label a line: server/kingpole/demo/labels.txt
            "--labels" => labels = std::fs::read_to_string(value)?.lines().map(str::to_owned).collect(),
            _ => return Err(format!("unknown option {option}").into()),
        }
    }

    let client = Client::builder(&url).timeout(Duration::from_secs(10)).build()?;
    let metadata = client.metadata(&model, None).await?;
    let wanted = metadata.inputs.first().ok_or("the model has no input")?;
    let [_, height, width, 3] = wanted.shape[..] else {
        return Err(format!(
            "{model} takes {} {}, which is no raw RGB picture",
            wanted.datatype, wanted.shape
        )
        .into());
    };
    if wanted.datatype != Datatype::Uint8 {
        return Err(format!("{model} takes {}, not raw RGB", wanted.datatype).into());
    }
    let pixels = read_picture(&picture, usize::try_from(height)?, usize::try_from(width)?)?;
    let image = Tensor::new(wanted.name.clone(), &[1, height, width, 3], pixels)?;

    let response = client.infer(Request::new(model).input(image)).await?;
    let probabilities = response.outputs.first().ok_or("no output came")?.elements::<f32>()?;
    let mut ranked: Vec<_> = probabilities.iter().enumerate().collect();
    ranked.sort_by(|one, other| other.1.total_cmp(one.1));
    for (index, probability) in ranked.into_iter().take(5) {
        let label = labels.get(index).cloned().unwrap_or_else(|| format!("class {index}"));
        println!("{:6.2}%  {label}", 100.0 * probability);
    }
    Ok(())
}

/// The picture's middle as raw RGB, scaled to the model's size by averages of the pixels that become one.
fn read_picture(path: &str, height: usize, width: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut decoder = png::Decoder::new(BufReader::new(File::open(path)?));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let mut bytes = vec![0; reader.output_buffer_size().ok_or("the picture is too large")?];
    let frame = reader.next_frame(&mut bytes)?;
    let samples = frame.color_type.samples();
    let (across, down) = (frame.width as usize, frame.height as usize);
    let side = across.min(down);
    let (left, top) = ((across - side) / 2, (down - side) / 2);
    let mut pixels = Vec::with_capacity(height * width * 3);
    for row in 0..height {
        for column in 0..width {
            let rows = span(row, side, height);
            let columns = span(column, side, width);
            let number = u32::try_from(rows.len() * columns.len())?;
            for channel in 0..3 {
                // Gray pictures have one sample, which stands for all three.
                let channel = if samples < 3 { 0 } else { channel };
                let at = |row: usize, column: usize| {
                    bytes[((top + row) * across + left + column) * samples + channel]
                };
                let sum: u32 = rows
                    .clone()
                    .flat_map(|row| columns.clone().map(move |column| (row, column)))
                    .map(|(row, column)| u32::from(at(row, column)))
                    .sum();
                pixels.push(u8::try_from(sum / number)?);
            }
        }
    }
    Ok(pixels)
}

/// Which of `side` pixels become the one at `index` of `of`; at least one.
fn span(index: usize, side: usize, of: usize) -> std::ops::Range<usize> {
    let start = index * side / of;
    start..((index + 1) * side / of).max(start + 1)
}
