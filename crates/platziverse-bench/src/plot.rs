//! The throughput as bars, in SVG.

use std::path::Path;

use plotters::prelude::*;

use crate::figure::{Figure, Subject, Unit, thousands};

const SIZE: (u32, u32) = (860, 420);
const FONT: &str = "sans-serif";
/// Room above the highest bar.
const HEADROOM: f64 = 1.15;
/// Three bars and a gap.
const GROUP: f64 = 4.0;

const SUBJECTS: [(Subject, &str, RGBColor); 3] = [
    (Subject::Platziverse, "Platziverse", RGBColor(0, 114, 178)),
    (Subject::Plugin, "RabbitMQ's MQTT plugin", RGBColor(230, 159, 0)),
    (Subject::Mosquitto, "Mosquitto (stores nothing)", RGBColor(150, 150, 150)),
];

/// Writes the messages a second that each subject acknowledged.
pub(crate) fn write(path: &Path, figures: &[Figure], clients: usize) -> Result<(), String> {
    let shown: Vec<&Figure> = figures
        .iter()
        .filter(|figure| figure.scenario == "edge" && figure.unit == Unit::PerSecond)
        .collect();
    if shown.is_empty() {
        return Err("there is nothing to plot: the scenario edge was not played".to_owned());
    }
    draw(path, &shown, clients).map_err(|error| format!("{}: {error}", path.display()))
}

fn draw(
    path: &Path,
    figures: &[&Figure],
    clients: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let medians = figures.iter().flat_map(|figure| SUBJECTS.map(|(one, _, _)| figure.median(one)));
    let most = medians.flatten().fold(0.0, f64::max) * HEADROOM;
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("QoS 1 publishes acknowledged a second, {clients} clients"), (FONT, 20))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..GROUP * figures.len() as f64, 0.0..most)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_label_formatter(&|value| thousands(*value))
        .label_style((FONT, 14))
        .draw()?;
    for (place, (subject, name, colour)) in SUBJECTS.into_iter().enumerate() {
        let bars = figures.iter().enumerate().filter_map(|(group, figure)| {
            let left = GROUP * group as f64 + 0.5 + place as f64;
            let height = figure.median(subject)?;
            Some(Rectangle::new([(left, 0.0), (left + 0.9, height)], colour.filled()))
        });
        chart
            .draw_series(bars)?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .label_font((FONT, 14))
        .draw()?;
    let below = |figure: &&Figure, group: usize| {
        let at = chart.backend_coord(&(GROUP * group as f64 + 1.2, 0.0));
        Text::new(figure.case.clone(), (at.0, at.1 + 8), (FONT, 15).into_font())
    };
    for (group, figure) in figures.iter().enumerate() {
        root.draw(&below(figure, group))?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Sample, gather};

    #[test]
    fn a_plot_has_its_words() {
        let mut figures = Vec::new();
        let of = |subject, value| Sample::of(subject, "20 in flight", "", Unit::PerSecond, value);
        gather(&mut figures, "edge", vec![of(Subject::Platziverse, 8.0), of(Subject::Plugin, 2.0)]);
        let path = std::env::temp_dir().join(format!("plot-{}.svg", std::process::id()));
        write(&path, &figures, 7).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(
            ["20 in flight", "Mosquitto", "7 clients"].iter().all(|words| text.contains(words))
        );
        assert!(write(&path, &[], 7).is_err());
    }
}
