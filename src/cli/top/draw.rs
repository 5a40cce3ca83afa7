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
/// What is left for the last one.
const MIN_LAST: u16 = 4;
const KEYS: &str = " q quit   Tab part   Enter whole screen   Esc back   ↑ ↓ PgUp PgDn scroll";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Press {
    Next,
    Previous,
    Whole,
    Back,
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
            Press::Back => self.whole = false,
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
    let columns = columns(part, area.width);
    let cells = |texts: &mut dyn Iterator<Item = String>| {
        let indented = texts.enumerate().map(|(n, text)| Cell::from(if n == 0 { format!("  {text}") } else { text }));
        TableRow::new(indented.collect::<Vec<_>>())
    };
    let rows = shown.map(|row| {
        let mut texts = columns.iter().map(|(column, _)| row.cells.get(*column).cloned().unwrap_or_default());
        cells(&mut texts).style(state.style(row.mood))
    });
    let header = cells(&mut columns.iter().map(|(column, _)| part.header[*column].to_owned()));
    let widths = columns.iter().map(|(_, width)| *width);
    let table = Table::new(rows, widths)
        .header(header.style(Style::new().add_modifier(Modifier::DIM)))
        .column_spacing(GAP)
        .block(block);
    frame.render_widget(table, area);
}

/// What the screen has room for: each column as wide as what stands in it, the last takes the rest.
fn columns(part: &Part, room: u16) -> Vec<(usize, Constraint)> {
    let width = |(column, name): (usize, &&str)| {
        let cell = |row: &Row| row.cells.get(column).map_or(0, |cell| cell.chars().count());
        let widest = part.rows.iter().map(cell).chain([name.chars().count()]).max().unwrap_or(0);
        let indent = if column == 0 { 2 } else { 0 };
        (column, u16::try_from(widest + indent).unwrap_or(MAX_COLUMN).min(MAX_COLUMN))
    };
    let mut columns: Vec<(usize, u16)> = part.header.iter().enumerate().map(width).collect();
    for spare in part.spare {
        // The last one may be cut: what it says is told elsewhere in full.
        let all_but_last = columns.iter().rev().skip(1).map(|(_, width)| u32::from(width + GAP)).sum::<u32>();
        if all_but_last + u32::from(MIN_LAST) <= u32::from(room) {
            break;
        }
        columns.retain(|(column, _)| part.header[*column] != *spare);
    }
    let last = columns.len().saturating_sub(1);
    let columns = columns.into_iter().enumerate();
    columns
        .map(|(n, (column, width))| {
            (column, if n == last { Constraint::Min(MIN_LAST) } else { Constraint::Length(width) })
        })
        .collect()
}
