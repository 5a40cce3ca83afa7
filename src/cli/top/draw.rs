//! How `peer top` looks: all parts below each other, or the chosen one alone. Colours only repeat what words say.

use super::picture::{Mood, Part, Picture, Row};
use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row as TableRow, Table};

/// Between two columns.
const GAP: u16 = 2;
/// No column but the last is wider.
const MAX_COLUMN: u16 = 40;
const KEYS: &str = " Tab part   Enter whole screen   ↑ ↓ PgUp PgDn scroll   q quit";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Press {
    Next,
    Previous,
    Whole,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
}

/// What the person at the keyboard has chosen.
#[derive(Default)]
pub struct State {
    chosen: usize,
    whole: bool,
    /// Rows scrolled away, of each part.
    scrolled: [usize; 5],
    /// Rows of the chosen part that fit, when it was last drawn.
    page: usize,
    colours: bool,
}

impl State {
    pub fn with_colours(mut self, colours: bool) -> Self {
        self.colours = colours;
        self
    }

    pub fn press(&mut self, key: Press) {
        let parts = self.scrolled.len();
        match key {
            Press::Next => self.chosen = (self.chosen + 1) % parts,
            Press::Previous => self.chosen = (self.chosen + parts - 1) % parts,
            Press::Whole => self.whole = !self.whole,
            Press::Up => self.scroll(|at, _| at.saturating_sub(1)),
            Press::Down => self.scroll(|at, _| at.saturating_add(1)),
            Press::PageUp => self.scroll(|at, page| at.saturating_sub(page)),
            Press::PageDown => self.scroll(|at, page| at.saturating_add(page)),
            Press::Home => self.scroll(|_, _| 0),
        }
    }

    fn scroll(&mut self, to: impl Fn(usize, usize) -> usize) {
        let page = self.page.max(1);
        if let Some(at) = self.scrolled.get_mut(self.chosen) {
            *at = to(*at, page);
        }
    }

    fn style(&self, mood: Mood) -> Style {
        match mood {
            Mood::Past => Style::new().add_modifier(Modifier::DIM),
            _ if !self.colours => Style::new(),
            Mood::Good => Style::new().fg(Color::Green),
            Mood::Moving => Style::new().fg(Color::Yellow),
            Mood::Bad => Style::new().fg(Color::Red),
        }
    }
}

pub fn draw(frame: &mut Frame, picture: &Picture, state: &mut State, now: Timestamp) {
    let (heading, troubles) = picture.heading();
    let parts = picture.parts(now);
    let head = u16::try_from(1 + troubles.len().min(3)).unwrap_or(4);
    let areas = Layout::vertical([Constraint::Length(head), Constraint::Min(0), Constraint::Length(1)]);
    let [top, middle, bottom] = areas.areas(frame.area());
    let mut lines = vec![Line::from(Span::styled(format!(" {heading}"), Style::new().add_modifier(Modifier::BOLD)))];
    let bad = state.style(Mood::Bad).add_modifier(Modifier::BOLD);
    lines.extend(troubles.iter().map(|trouble| Line::from(Span::styled(format!(" ! {trouble}"), bad))));
    frame.render_widget(Paragraph::new(lines), top);
    frame.render_widget(Paragraph::new(Span::styled(KEYS, Style::new().add_modifier(Modifier::REVERSED))), bottom);
    if state.whole {
        if let Some(part) = parts.get(state.chosen) {
            draw_part(frame, part, middle, state.chosen, state);
        }
        return;
    }
    let areas = split(&parts, state.chosen, middle);
    for (index, (part, area)) in parts.iter().zip(areas).enumerate() {
        draw_part(frame, part, area, index, state);
    }
}

/// Each part gets what it needs; where that is too much, the longest ones give way, the chosen one no further than to half
/// of the room while others are more than a title.
fn split(parts: &[Part], chosen: usize, area: Rect) -> Vec<Rect> {
    // Its title, its header, its rows, and a line between it and the next.
    let mut heights: Vec<u16> =
        parts.iter().map(|part| u16::try_from(part.rows.len().max(1)).unwrap_or(u16::MAX).saturating_add(3)).collect();
    let total = |heights: &[u16]| heights.iter().map(|height| u32::from(*height)).sum::<u32>();
    while total(&heights) > u32::from(area.height) {
        let gives_way =
            |(index, height): &(usize, &mut u16)| **height > if *index == chosen { area.height / 2 } else { 1 };
        let longest = heights.iter_mut().enumerate().filter(gives_way).max_by_key(|(_, height)| **height);
        match longest {
            Some((_, height)) => *height -= 1,
            None => match heights.iter_mut().max().filter(|height| **height > 0) {
                Some(height) => *height -= 1,
                None => break,
            },
        }
    }
    let mut y = area.y;
    heights
        .into_iter()
        .map(|height| {
            let part = Rect { x: area.x, y, width: area.width, height };
            y += height;
            part
        })
        .collect()
}

fn draw_part(frame: &mut Frame, part: &Part, area: Rect, index: usize, state: &mut State) {
    if area.height == 0 {
        return;
    }
    let chosen = index == state.chosen;
    let fitting = usize::from(area.height.saturating_sub(if state.whole { 2 } else { 3 }));
    let last = part.rows.len().saturating_sub(fitting);
    let from = state.scrolled.get(index).copied().unwrap_or_default().min(last);
    if let Some(at) = state.scrolled.get_mut(index) {
        *at = from;
    }
    if chosen {
        state.page = fitting;
    }
    let shown = part.rows.iter().skip(from).take(fitting);
    let hidden = part.rows.len().saturating_sub(fitting);
    let mark = if chosen { ">" } else { " " };
    let title = match hidden {
        _ if fitting == 0 => format!("{mark}{}: {}", part.title, part.rows.len()),
        0 => format!("{mark}{}", part.title),
        _ => format!(
            "{mark}{} {} to {} of {}",
            part.title,
            from + 1,
            from + fitting.min(part.rows.len()),
            part.rows.len()
        ),
    };
    let weight = if chosen { Modifier::BOLD | Modifier::UNDERLINED } else { Modifier::BOLD };
    let block = Block::new().title(Span::styled(title, Style::new().add_modifier(weight)));
    if fitting == 0 && !part.rows.is_empty() {
        frame.render_widget(block, area);
        return;
    }
    if part.rows.is_empty() {
        let text = Span::styled(format!("  {}", part.empty), Style::new().add_modifier(Modifier::DIM));
        frame.render_widget(Paragraph::new(text).block(block), area);
        return;
    }
    let rows = shown.map(|row| {
        let cells = row
            .cells
            .iter()
            .enumerate()
            .map(|(column, cell)| Cell::from(if column == 0 { format!("  {cell}") } else { cell.clone() }));
        TableRow::new(cells).style(state.style(row.mood))
    });
    let header = part.header.iter().enumerate();
    let header = header.map(|(column, name)| if column == 0 { format!("  {name}") } else { (*name).to_owned() });
    let table = Table::new(rows, widths(part))
        .header(TableRow::new(header).style(Style::new().add_modifier(Modifier::DIM)))
        .column_spacing(GAP)
        .block(block);
    frame.render_widget(table, area);
}

/// As wide as what stands in it; the last takes the rest.
fn widths(part: &Part) -> Vec<Constraint> {
    let last = part.header.len().saturating_sub(1);
    let width = |column: usize, name: &str| {
        let cell = |row: &Row| row.cells.get(column).map_or(0, |cell| cell.chars().count());
        let widest = part.rows.iter().map(cell).chain([name.chars().count()]).max().unwrap_or(0);
        let indent = if column == 0 { 2 } else { 0 };
        u16::try_from(widest + indent).unwrap_or(MAX_COLUMN).min(MAX_COLUMN)
    };
    let columns = part.header.iter().enumerate();
    columns.map(|(n, name)| if n == last { Constraint::Min(4) } else { Constraint::Length(width(n, name)) }).collect()
}
