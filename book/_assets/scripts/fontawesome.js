// Replaces the theme's file of the same name: 1.5 MB of icons as SVG, which every page would load.
// Without it the theme's style sheet draws the same icons from a web font a tenth of that size.
