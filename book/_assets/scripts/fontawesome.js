// Takes the place of the theme's file of the same name, 1.5 MB of icons as SVG that every page would load. The theme's style
// sheet draws the same icons from a web font of a tenth of that size, which this leaves it to do.
